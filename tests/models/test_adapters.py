"""Adapters: put on the chosen layers only, saved and loaded, merged into their base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pipeline import models, policy
from pipeline.errors import ModelError, PolicyError
from pipeline.policy import Lora
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    return models.resolve(str(tiny.save(tmp_path_factory.mktemp("models") / "tiny")), Path("nowhere"))


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


@pytest.fixture
def moved(base: models.Base, tmp_path: Path) -> Path:
    """An adapter that changes what its base says."""
    adapted = models.adapt(models.load(base)[0], Lora(), seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return models.save_adapter(adapted, tmp_path / "adapter")


def test_an_exported_folder_says_what_the_adapted_model_says(base: models.Base, moved: Path, tmp_path: Path) -> None:
    folder = models.export(base, moved, tmp_path / "whole", precision=torch.float32)
    ids = torch.arange(2, 12)[None]
    expected = models.with_adapter(base, moved)[0](input_ids=ids).logits
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.allclose(whole(input_ids=ids).logits, expected, atol=1e-5)
    assert not torch.allclose(models.load(base)[0](input_ids=ids).logits, expected, atol=1e-3)  # the control
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    again = models.resolve(str(folder), tmp_path)
    assert models.load_tokenizer(again)(" baba")["input_ids"] == models.load_tokenizer(base)(" baba")["input_ids"]


def test_an_adapter_can_be_kept_apart(base: models.Base, moved: Path, tmp_path: Path) -> None:
    folder = models.export(base, moved, tmp_path / "apart", merge=False, precision=torch.float32)
    ids = torch.arange(2, 12)[None]
    plain = models.resolve(str(folder), tmp_path)
    assert torch.allclose(models.load(plain)[0](input_ids=ids).logits, models.load(base)[0](input_ids=ids).logits, atol=1e-6)
    expected = models.with_adapter(base, moved)[0](input_ids=ids).logits
    assert torch.allclose(models.with_adapter(plain, folder / "adapter")[0](input_ids=ids).logits, expected, atol=1e-5)


def test_nothing_is_written_over(base: models.Base, moved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not empty"):
        models.export(base, moved, moved)
