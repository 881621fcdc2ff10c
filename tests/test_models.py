"""Base models: found or refused, adapted on the chosen layers, generated from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline import models, policy
from pipeline.errors import ModelError, PolicyError
from pipeline.policy import Lora
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    return models.resolve(str(tiny.save(tmp_path_factory.mktemp("models") / "tiny")), Path("nowhere"))


def test_a_folder_is_described_and_its_digest_follows_its_bytes(base: models.Base, tmp_path: Path) -> None:
    other = models.resolve(str(tiny.save(tmp_path / "tiny", tiny.llama(seed=1))), tmp_path)
    assert base.name == other.name == "tiny"
    assert base.context == 128
    model = tiny.llama()
    assert base.parameters == sum(p.numel() for p in model.parameters())
    assert base.digest != other.digest


def test_a_pulled_model_is_found_by_name(tmp_path: Path) -> None:
    tiny.save(tmp_path / "models" / "ours")
    assert models.resolve("ours", tmp_path).folder == (tmp_path / "models" / "ours").resolve()


def test_the_bundled_model_is_here_and_small() -> None:
    nano = models.resolve("nano", Path("nowhere"))
    assert 6e6 <= nano.parameters <= 10e6
    assert (nano.folder / "model.safetensors").stat().st_size <= 20e6
    facts = json.loads((nano.folder / "pretraining.json").read_text())
    assert facts["bits_per_byte"] <= 2.0
    assert nano.licence != "not stated"


def test_unknown_and_unfit_models_are_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no base model gigantic here: give nano"):
        models.resolve("gigantic", tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json is unfit"):
        models.resolve(str(tmp_path / "bad"), tmp_path)
    folder = tiny.save(tmp_path / "weightless")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        models.resolve(str(folder), tmp_path)


@pytest.mark.parametrize(("layers", "blocks"), [("all", {0, 1, 2}), ("top_half", {1, 2}), (1, {2})])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_adapters_sit_on_the_chosen_layers_and_change_nothing_yet(family: str, layers: str | int, blocks: set[int]) -> None:
    model = tiny.FAMILIES[family](layers=3).requires_grad_(False)
    ids = torch.arange(2, 12)[None]
    before = model(input_ids=ids).logits
    adapted = models.adapt(model, Lora(layers=layers), seed=0)
    found = {
        int(part) for name, p in adapted.named_parameters() if p.requires_grad for part in name.split(".") if part.isdigit()
    }
    assert found == blocks
    assert torch.allclose(adapted(input_ids=ids).logits, before)


def test_initialisation_follows_its_seed_and_leaves_the_global_generator_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        adapted = models.adapt(tiny.llama(), Lora(), seed)
        return next(p for name, p in adapted.named_parameters() if "lora_A" in name).detach()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = weights(1)
    torch.manual_seed(5)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
    torch.set_rng_state(state)


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(ModelError, match="asks for 9 layers and the model has 2"):
        models.adapt(tiny.llama(), Lora(layers=9), seed=0)


def test_an_adapter_survives_saving_and_loading(base: models.Base, tmp_path: Path) -> None:
    adapted = models.adapt(models.load(base)[0], Lora(), seed=0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    ids = torch.arange(2, 12)[None]
    models.save_adapter(adapted, tmp_path / "adapter")
    again, _ = models.with_adapter(base, tmp_path / "adapter")
    assert torch.allclose(again(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-6)
    assert not (tmp_path / "adapter" / "README.md").exists()
    assert set(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    with pytest.raises(ModelError, match="holds no adapter_config"):
        models.with_adapter(base, tmp_path)


def test_greedy_is_a_hand_written_argmax_loop(base: models.Base) -> None:
    model, tokenizer = models.load(base)
    prompt = " " + tiny.sentence(2, 5)
    ids = [0, *tokenizer(prompt)["input_ids"]]
    start = len(ids)
    for _ in range(12):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 0:
            break
    expected = tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert models.generate(model, tokenizer, prompt, max_new_tokens=12) == expected


def test_sampling_follows_its_seed_and_beams_find_something_at_least_as_likely(base: models.Base) -> None:
    model, tokenizer = models.load(base)
    first = models.generate(model, tokenizer, "", decoding="sample", seed=1, max_new_tokens=12)
    assert first == models.generate(model, tokenizer, "", decoding="sample", seed=1, max_new_tokens=12)
    assert first != models.generate(model, tokenizer, "", decoding="sample", seed=2, max_new_tokens=12)
    assert isinstance(models.generate(model, tokenizer, " baba", decoding="beam", max_new_tokens=4), str)


def test_weights_that_two_modules_share_are_not_trained_whole() -> None:
    """A tied head would be clipped, saved and merged as if it were another weight than the embedding."""
    with pytest.raises(ModelError, match="tied embeddings"):
        models.adapt(tiny.llama().requires_grad_(False), Lora(also_train=("lm_head",)), 0)
    models.adapt(tiny.qwen().requires_grad_(False), Lora(also_train=("lm_head",)), 0)  # the control: not tied


@pytest.mark.parametrize(("name", "words"), [("nothing_here", "no such module"), ("mlp", "no layer with weights of its own")])
def test_only_single_layers_are_trained_whole(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        models.adapt(tiny.qwen().requires_grad_(False), Lora(also_train=(name,)), 0)


def test_batch_norm_is_refused() -> None:
    model = tiny.llama().requires_grad_(False)
    model.model.layers[1].mlp.act_fn = torch.nn.Sequential(torch.nn.BatchNorm1d(64), torch.nn.SiLU())
    with pytest.raises(ModelError, match="batch norm"):
        models.adapt(model, Lora(), 0)


def test_the_first_weights_follow_from_the_seed_and_nothing_else() -> None:
    """LoRA is never initialised from data (EVA, PiSSA and the like): B is zero, and A depends on the seed alone."""

    def first(seed: int, model_seed: int = 0) -> dict[str, torch.Tensor]:
        adapted = models.adapt(tiny.llama(seed=model_seed).requires_grad_(False), Lora(), seed)
        assert adapted.peft_config["default"].init_lora_weights is True
        return {name: p.detach() for name, p in adapted.named_parameters() if p.requires_grad}

    one, other = first(0), first(0, model_seed=1)  # other base weights, the same A: not even they enter
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(p.abs().max() == 0 for name, p in one.items() if "lora_B" in name)
    assert any(not torch.equal(one[name], p) for name, p in first(1).items())
    with pytest.raises(PolicyError, match="init_lora_weights is unknown"):
        policy.load("default").override(train__lora__init_lora_weights="eva")
