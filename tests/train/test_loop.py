"""The training stage: it learns, it charges every step before it is taken, and a killed run goes on without undercounting."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline import models, policy
from pipeline.canaries import Planted
from pipeline.corpus import Part, Record, load_records, save_records
from pipeline.errors import InputError, ModelError, StageError
from pipeline.folders import digest_file
from pipeline.train import distributed, loop
from pipeline.train import optimizer as optimizer_module
from pipeline.train.coverage import check_rows_are_independent
from pipeline.train.examples import Example
from pipeline.train.gradients import UnitGradients
from pipeline.train.loop import Trained, train
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.reuse import EntryStates
from tests import tiny

pytestmark = pytest.mark.usefixtures("quick")

RECORDS = 60


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    folder = tiny.save(tmp_path_factory.mktemp("models") / "tiny")
    return models.resolve(str(folder), folder.parent)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    folder = tmp_path / "planted"
    folder.mkdir()
    text = " " + tiny.sentence(1, 8)
    save_records(folder / "train.jsonl", (Record(f"r{i}", f"u{i % 30}", (Part("text", text),)) for i in range(RECORDS)))
    return Planted(
        folder=folder,
        train_records=RECORDS,
        train_units=RECORDS,
        held_out_records=0,
        held_out_units=0,
        canaries=0,
        secrets=0,
        secrets_included=0,
        included=0,
        manifest_digest="m",
        digest=digest_file(folder / "train.jsonl"),
    )


def mechanism(steps: int = 6, noise: float = 2.0, unit: str = "record") -> Mechanism:
    units = RECORDS if unit == "record" else 30
    return Mechanism(
        unit=unit, units=units, expected_batch=15, steps=steps, noise_multiplier=noise, clipping_norm=0.1, delta=1e-3
    )


def run(planted: Planted, base: models.Base, folder: Path, run: Mechanism, **options: object) -> Trained:
    chosen = policy.load("default").override(
        train__learning_rate=0.05, train__expected_batch=15, train__steps=run.steps, data__max_tokens=32
    )
    spend = options.pop("spend", lambda taken: None)
    return train(planted, base, run, chosen, folder, claim="c", spend=spend, **options)


def test_it_learns_saves_reloads_and_states_what_it_spent(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    taken: list[int] = []
    trained = run(planted, base, tmp_path / "trained", mechanism(steps=12), spend=taken.append)
    assert taken == list(range(1, 13))
    assert trained.steps == 12
    assert trained.epsilon == mechanism(steps=12).epsilon()
    assert trained.epsilon_prv == pytest.approx(trained.epsilon, abs=0.05)
    model, tokenizer = models.with_adapter(base, trained.adapter)
    ids = torch.tensor([[0, *tokenizer(" " + tiny.sentence(1, 8))["input_ids"], 0]])
    tuned = float(model(input_ids=ids, labels=ids).loss)
    with model.disable_adapter():
        plain = float(model(input_ids=ids, labels=ids).loss)
    assert tuned < plain - 0.1
    statement = json.loads((trained.folder / "privacy.json").read_text())
    assert statement["epsilon"] == trained.epsilon
    assert statement["steps_charged"] == statement["steps_taken"] == statement["updates"] == 12
    assert (trained.noisy_steps, trained.updates) == (12, 12)
    assert "12 are in the released weights." in statement["steps_in_words"]
    assert statement["noise_multiplier"] == 2.0
    assert not list(trained.folder.glob("checkpoint*"))
    assert str(tmp_path) not in (trained.adapter / "adapter_config.json").read_text()


def test_a_finished_training_is_not_repeated(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    first = run(planted, base, tmp_path / "trained", mechanism())
    taken: list[int] = []
    assert run(planted, base, tmp_path / "trained", mechanism(), spend=taken.append) == first
    assert taken == []


def test_a_run_whose_every_step_was_lost_is_refused(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="before its first checkpoint"):
        run(planted, base, tmp_path / "trained", mechanism(), taken=6)
    assert not (tmp_path / "trained").exists()


def test_noise_is_never_seeded(planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    monkeypatch.setattr(loop.PoissonSampler, "draw", lambda self: [])  # else the draws alone would tell the two apart
    for name in ("a", "b"):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        trained = run(planted, base, tmp_path / name, mechanism(steps=1))
        weights.append(load_file(trained.adapter / "adapter_model.safetensors"))
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_an_empty_draw_is_taken_counted_and_noised(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.PoissonSampler, "draw", lambda self: [])
    taken: list[int] = []
    trained = run(planted, base, tmp_path / "trained", mechanism(steps=2), spend=taken.append)
    assert (trained.empty_draws, taken) == (2, [1, 2])
    weights = load_file(trained.adapter / "adapter_model.safetensors")
    assert all(value.abs().max() > 0 for key, value in weights.items() if "lora_B" in key)


def test_weights_that_do_not_move_stop_the_run(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnitOptimizer, "step", lambda self: None)
    with pytest.raises(StageError, match="moved no weight"):
        run(planted, base, tmp_path / "trained", mechanism())


def test_frozen_layers_are_reused_where_only_the_top_is_adapted(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    chosen = policy.load("default").override(train__lora__layers="top_half", train__expected_batch=15, data__max_tokens=32)
    trained = train(planted, base, mechanism(), chosen, tmp_path / "t", claim="c", spend=lambda taken: None)
    assert trained.gradients == "direct, frozen layers reused"
    assert not list(trained.folder.glob("entry-states*"))
    off = chosen.override(train__reuse_gigabytes=0)
    assert train(planted, base, mechanism(), off, tmp_path / "u", claim="c", spend=lambda taken: None).gradients == "direct"


def test_a_full_disk_leaves_no_room_for_reused_states(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert run(planted, base, tmp_path / "t", mechanism(steps=1)).gradients == "direct"


def mixed_below(base: models.Base) -> tuple[PreTrainedModel, object]:
    """A model whose first, frozen block adds to every row the mean of the batch."""
    model, tokenizer = models.load(base)
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: output + output.mean(0, keepdim=True))
    return model, tokenizer


def test_reused_layers_cannot_hide_a_block_that_mixes_the_rows(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = policy.load("default").override(train__lora__layers="top_half", train__expected_batch=15, data__max_tokens=32)
    mixed = mixed_below(base)
    adapted = models.adapt(mixed[0], chosen.train.lora, 0)
    states = EntryStates(adapted, tmp_path / "states", 32, 10**6, 60)
    reused = UnitGradients(adapted, 1.0, 1, states)
    with reused.attached():  # the control: a check on the reused path alone finds nothing
        check_rows_are_independent(reused, 32, len(tiny.tokenizer()))
    for start in (
        lambda: loop.rehearse(planted, base, chosen),
        lambda: train(planted, base, mechanism(), chosen, tmp_path / "t", claim="c", spend=print),
    ):
        with monkeypatch.context() as patch:
            fresh = mixed_below(base)
            patch.setattr(models, "load", lambda base, fresh=fresh: fresh)
            with pytest.raises(ModelError, match="from its neighbours"):
                start()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"dropout": 0.1}, "Opacus hooks, for "),
        ({"dora": True}, "one unit at a time, for "),
        ({"also_train": ["lm_head"]}, "Opacus hooks, for "),
        ({"also_train": ["lm_head"], "dora": True, "dropout": 0.1, "layers": "top_half"}, "one unit at a time, for "),
    ],
)
def test_what_the_direct_path_does_not_cover_is_trained_and_named(
    planted: Planted, tmp_path: Path, options: dict, path: str
) -> None:
    folder = tiny.save(tmp_path / "qwen", tiny.qwen())
    base = models.resolve(str(folder), tmp_path)
    chosen = policy.load("default").override(train__learning_rate=0.05, train__expected_batch=15, data__max_tokens=32)
    chosen = chosen.override(**{f"train__lora__{name}": value for name, value in options.items()})
    loop.rehearse(planted, base, chosen)
    trained = train(planted, base, mechanism(steps=2), chosen, tmp_path / "t", claim="c", spend=lambda taken: None)
    assert trained.gradients.startswith(path)
    assert json.loads((trained.folder / "privacy.json").read_text())["gradients"] == trained.gradients
    model, _ = models.with_adapter(base, trained.adapter)
    ids = torch.arange(2, 12)[None]
    tuned = model(input_ids=ids).logits
    with model.disable_adapter():
        assert not torch.allclose(tuned, model(input_ids=ids).logits, atol=1e-3)
    merged = model.merge_and_unload()
    assert torch.allclose(merged(input_ids=ids).logits, tuned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_move_at_the_first_step_and_survive_saving_reloading_and_merging(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    folder = tiny.save(tmp_path / family, tiny.FAMILIES[family]())
    base = models.resolve(str(folder), tmp_path)
    held: dict[str, torch.Tensor] = {}
    save = models.save_adapter

    def seen(model: PeftModel, folder: Path, *over: object) -> Path:
        held["logits"] = model(input_ids=torch.arange(2, 12)[None]).logits.detach()
        return save(model, folder, *over)

    monkeypatch.setattr(models, "save_adapter", seen)
    trained = run(planted, base, tmp_path / "trained", mechanism(steps=1))
    model, _ = models.with_adapter(base, trained.adapter)
    assert all(p.abs().max() > 0 for name, p in model.named_parameters() if "lora_B" in name)  # B begins at zero
    ids = torch.arange(2, 12)[None]
    tuned = model(input_ids=ids).logits
    assert torch.allclose(tuned, held["logits"], atol=1e-6)
    with model.disable_adapter():
        plain = model(input_ids=ids).logits
    assert not torch.allclose(tuned, plain, atol=1e-3)
    merged = model.merge_and_unload()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert torch.allclose(merged(input_ids=ids).logits, tuned, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(again(input_ids=ids).logits, tuned, rtol=1e-4, atol=1e-5)


def test_people_are_trained_as_units(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    people = planted.model_copy(update={"train_units": 30})
    trained = run(people, base, tmp_path / "trained", mechanism(unit="person", noise=2.0))
    assert trained.mechanism.units == 30
    assert json.loads((trained.folder / "privacy.json").read_text())["unit"] == "person"


def test_long_records_are_refused_or_cut_as_the_policy_says(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    chosen = policy.load("default").override(data__max_tokens=8, data__overlong="refuse")
    with pytest.raises(InputError, match=r"60 records are longer than data\.max_tokens = 8 tokens \(the first is number 1\)"):
        train(planted, base, mechanism(), chosen, tmp_path / "t", claim="c", spend=lambda taken: None)
    with pytest.raises(InputError, match=r"the context of tiny is 128: lower data\.max_tokens"):
        train(planted, base, mechanism(), chosen.override(data__max_tokens=500), tmp_path / "t", claim="c", spend=print)


def steps_of(
    planted: Planted, base: models.Base, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[set[str], torch.Tensor, torch.Tensor]]:
    """Units drawn, clipped sum and noise of every step of a real training run."""
    seen: list[tuple[set[str], torch.Tensor, torch.Tensor]] = []
    draws: list[set[str]] = []
    draw, pre_step = loop.PoissonSampler.draw, UnitOptimizer.pre_step

    def watched_draw(self: loop.PoissonSampler) -> list[list[Example]]:
        units = draw(self)
        draws.append({example.id for unit in units for example in unit})
        return units

    def watched_step(self: UnitOptimizer, closure: object = None) -> bool:
        before = torch.cat([(torch.zeros_like(p) if p.summed_grad is None else p.summed_grad).flatten() for p in self.params])
        result = pre_step(self, closure)
        after = torch.cat([p.grad.flatten() for p in self.params]) * mechanism().expected_batch
        seen.append((draws[-1], before, after - before))
        return result

    monkeypatch.setattr(loop.PoissonSampler, "draw", watched_draw)
    monkeypatch.setattr(UnitOptimizer, "pre_step", watched_step)
    run(planted, base, folder, mechanism())
    return seen


def broken_promises(steps: list[tuple[set[str], torch.Tensor, torch.Tensor]]) -> set[str]:
    """Which of the promises of DP-SGD a run's steps break."""
    broken = set()
    if any(float(total.norm()) > len(units) * 0.1 * 1.0001 for units, total, _ in steps):
        broken.add("clipping")
    if any(abs(float(noise.std()) / (2.0 * 0.1) - 1) > 0.05 for *_, noise in steps):
        broken.add("noise scale")
    if abs(float(torch.corrcoef(torch.stack([steps[0][2], steps[1][2]]))[0, 1])) > 0.1:
        broken.add("fresh noise")
    if all(units == steps[0][0] for units, *_ in steps):
        broken.add("sampling")
    return broken


def test_every_step_of_a_run_clips_samples_and_noises_as_promised(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broken_promises(steps_of(planted, base, tmp_path / "t", monkeypatch)) == set()


@pytest.mark.parametrize("fault", ["clipping", "noise scale", "fresh noise", "sampling"])
def test_a_loop_with_a_planted_fault_is_caught(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Negative controls: each way to wire the loop wrongly breaks exactly the promise that it should."""
    if fault == "clipping":
        real = distributed.gradients_for
        monkeypatch.setattr(distributed, "gradients_for", lambda model, norm, *rest: real(model, 1000 * norm, *rest))
    elif fault == "noise scale":
        init = UnitOptimizer.__init__

        def quiet(self: UnitOptimizer, inner: torch.optim.Optimizer, run: Mechanism) -> None:
            init(self, inner, run)
            self.noise_multiplier /= 10

        monkeypatch.setattr(UnitOptimizer, "__init__", quiet)
    elif fault == "fresh noise":
        fixed = torch.randn(10**6, dtype=torch.float64)
        monkeypatch.setattr(optimizer_module, "add_normal", lambda total, std, *_: total.add_(std * fixed[: len(total)]))
    else:
        first: list[list[list[Example]]] = []
        draw = loop.PoissonSampler.draw

        def same(self: loop.PoissonSampler) -> list[list[Example]]:
            if not first:
                first.append(draw(self))
            return first[0]

        monkeypatch.setattr(loop.PoissonSampler, "draw", same)
    assert fault in broken_promises(steps_of(planted, base, tmp_path / "t", monkeypatch))


def test_a_persons_records_beyond_the_policys_are_left_out_of_a_step(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty persons have two records each; the policy lets one contribute to a step."""
    sizes: list[int] = []
    add = UnitGradients.add

    def watched(self: UnitGradients, units: Sequence[Sequence[Example]]) -> float:
        sizes.extend(len(unit) for unit in units if not unit[0].id.startswith("check-"))
        return add(self, units)

    monkeypatch.setattr(UnitGradients, "add", watched)
    people = planted.model_copy(update={"train_units": 30})
    chosen = policy.load("default").override(privacy__records_per_unit=1, train__expected_batch=15, data__max_tokens=32)
    train(people, base, mechanism(unit="person"), chosen, tmp_path / "t", claim="c", spend=lambda taken: None)
    assert set(sizes) == {1}
    sizes.clear()
    chosen = chosen.override(privacy__records_per_unit=2)
    train(people, base, mechanism(unit="person"), chosen, tmp_path / "u", claim="c", spend=lambda taken: None)
    assert set(sizes) == {2}


def test_a_run_is_trained_in_one_place_at_a_time(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    with loop._only_one(tmp_path / "training.lock"), pytest.raises(StageError, match="Another process trains run"):
        run(planted, base, tmp_path / "trained", mechanism())
    assert run(planted, base, tmp_path / "trained", mechanism()).noisy_steps == 6


def test_canaries_too_long_to_be_judged_are_refused_before_anything_is_reserved(planted: Planted, base: models.Base) -> None:
    chosen = policy.load("default").override(data__max_tokens=32)
    loop.rehearse(planted, base, chosen)
    canary = Record("hushtune-canary-0001", "hushtune-canary-0001", (Part("text", " " + tiny.sentence(2, 60)),))
    records = [*load_records(planted.folder / "train.jsonl"), canary]
    save_records(planted.folder / "train.jsonl", records)
    with pytest.raises(InputError, match=r"1 canaries are longer than data\.max_tokens = 32"):
        loop.rehearse(planted, base, chosen)
