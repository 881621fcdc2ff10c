"""The released step may be chosen by public data alone, and an early stop saves time, not budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline import models, policy
from pipeline.canaries import Planted
from pipeline.corpus import Part, Record
from pipeline.errors import InputError, PolicyError
from pipeline.folders import digest_file
from pipeline.policy import Policy
from pipeline.train import checkpoint, selection
from pipeline.train.examples import Example, encode
from pipeline.train.loop import Trained, train
from pipeline.train.mechanism import Mechanism
from tests import tiny
from tests.train.interrupted import RECORDS, plant

pytestmark = pytest.mark.usefixtures("quick")

STEPS = 6
MECHANISM = Mechanism(
    unit="record", units=RECORDS, expected_batch=10, steps=STEPS, noise_multiplier=2.0, clipping_norm=0.1, delta=1e-3
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> models.Base:
    folder = tiny.save(tmp_path_factory.mktemp("models") / "tiny", tiny.llama(layers=1, width=16))
    return models.resolve(str(folder), folder.parent)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return plant(tmp_path / "planted")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    path = tmp_path / "public.jsonl"
    path.write_text("".join(json.dumps({"text": " " + tiny.sentence(1000 + i, 5 + i % 4)}) + "\n" for i in range(12)))
    return path


def rules(public: Path, **options: object) -> Policy:
    section = {"rule": "best_checkpoint", "public_data": str(public), "every": 1, "patience": 2} | options
    return policy.load("default").override(
        train__selection=section, train__learning_rate=0.05, train__expected_batch=10, data__max_tokens=16
    )


def losses_are(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    left = iter(losses)
    monkeypatch.setattr(selection, "public_loss", lambda *_: next(left))


def run(planted: Planted, base: models.Base, chosen: Policy, folder: Path, **options: object) -> tuple[Trained, list[int]]:
    taken: list[int] = []
    trained = train(planted, base, MECHANISM, chosen, folder, claim="c", **{"spend": taken.append} | options)  # type: ignore
    return trained, taken


@pytest.mark.parametrize("missing", [None, ""])
def test_a_choice_without_public_data_is_refused(missing: str | None) -> None:
    with pytest.raises(PolicyError, match=r"train\.selection needs public_data: .* would spend privacy that nobody counts"):
        rules(Path("x"), public_data=missing)


def test_the_best_step_by_public_loss_is_released_and_costs_nothing(
    planted: Planted, base: models.Base, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_are(monkeypatch, [5.0, 4.0, 3.0, 3.5, 3.2, 3.1])
    seen: list[dict[str, torch.Tensor]] = []
    put = selection.put
    monkeypatch.setattr(selection, "put", lambda model, held: (seen.append(held), put(model, held)))
    trained, taken = run(planted, base, rules(public), tmp_path / "t")
    assert (trained.updates, trained.noisy_steps, trained.steps) == (3, STEPS, STEPS)
    assert taken == list(range(1, STEPS + 1))
    assert trained.epsilon == MECHANISM.epsilon()
    model, _ = models.with_adapter(base, trained.adapter)
    released = [p for name, p in model.named_parameters() if "lora_" in name]
    assert all(torch.equal(a, b) for a, b in zip(released, seen[0].values(), strict=True))
    statement = json.loads((trained.folder / "privacy.json").read_text())
    assert statement["selection"]["public_data_sha256"] == digest_file(public)
    assert statement["selection"]["looks"] == STEPS
    assert statement["stopped_early"] is False
    assert "the records of train.selection.public_data" in statement["public"]
    assert str(tmp_path) not in json.dumps(statement)


def test_an_early_stop_is_charged_for_every_planned_step(
    planted: Planted, base: models.Base, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_are(monkeypatch, [5.0, 5.5, 5.2])
    trained, taken = run(planted, base, rules(public, rule="early_stopping"), tmp_path / "t")
    assert taken == [1, 2, 3]
    assert (trained.updates, trained.noisy_steps, trained.steps) == (1, 3, STEPS)
    assert trained.epsilon == MECHANISM.epsilon()
    assert trained.epsilon > MECHANISM.epsilon(3)  # the control: what a refund would have claimed
    statement = json.loads((trained.folder / "privacy.json").read_text())
    assert statement["stopped_early"] is True
    assert (statement["steps_charged"], statement["steps_taken"], statement["updates"]) == (STEPS, 3, 1)
    assert "so all are charged" in statement["steps_in_words"]


def test_a_killed_choice_goes_on_from_what_it_has_seen(
    planted: Planted, base: models.Base, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    losses_are(monkeypatch, [2.0, 3.0, 9.0])

    def die(done: int, total: int, **figures: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    chosen = rules(public, rule="early_stopping")
    with pytest.raises(KeyboardInterrupt):
        run(planted, base, chosen, tmp_path / "t", progress=die)
    trained, taken = run(planted, base, chosen, tmp_path / "t", taken=2)
    assert taken == [3]  # one more look without a better loss, and it was the second
    assert (trained.updates, trained.noisy_steps, trained.steps) == (1, 3, STEPS)


def test_without_the_section_nothing_is_looked_at(
    planted: Planted, base: models.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses_are(monkeypatch, [])
    chosen = policy.load("default").override(train__expected_batch=10, data__max_tokens=16)
    trained, _ = run(planted, base, chosen, tmp_path / "t")
    assert trained.updates == trained.steps == STEPS
    assert json.loads((trained.folder / "privacy.json").read_text())["selection"] is None


def test_other_public_data_is_another_training(planted: Planted, base: models.Base, public: Path, tmp_path: Path) -> None:
    chosen = rules(public, every=6)
    run(planted, base, chosen, tmp_path / "t")
    assert run(planted, base, chosen, tmp_path / "t")[1] == []  # the control: found by its inputs
    with public.open("a") as file:
        file.write(json.dumps({"text": " babe"}) + "\n")
    assert len(run(planted, base, chosen, tmp_path / "t")[1]) == STEPS


def test_private_records_in_the_public_file_are_refused(planted: Planted, public: Path, tmp_path: Path) -> None:
    chosen, private = rules(public), planted.folder / "train.jsonl"
    selection.check(chosen, private, tmp_path / "one")
    with public.open("a") as file:
        file.write(json.dumps({"text": " " + tiny.sentence(3, 6)}) + "\n")
    with pytest.raises(InputError, match=r"1 records of the data are also in train\.selection\.public_data"):
        selection.check(chosen, private, tmp_path / "two")


def test_a_public_file_that_is_not_there_is_refused(planted: Planted, base: models.Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is not a file"):
        run(planted, base, rules(tmp_path / "nowhere.jsonl"), tmp_path / "t")


def test_the_public_loss_is_that_of_single_records(base: models.Base) -> None:
    model, tokenizer = models.load(base)
    adapted = models.adapt(model, policy.Lora(dropout=0.5), 0)
    records = [Record(f"r{i}", f"r{i}", (Part("text", " " + tiny.sentence(i, 3 + i)),)) for i in range(6)]
    examples = encode(records, tokenizer, 32)
    single = []
    for example in examples:
        ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
        single.append(float(adapted.eval()(input_ids=ids, labels=labels).loss.detach()))
    adapted.train()  # as on Opacus's hooks: dropout must be off while it looks, and on again after
    assert selection.public_loss(adapted, examples, 1) == pytest.approx(sum(single) / len(single), rel=1e-5)
    assert adapted.training


def test_a_look_does_not_turn_on_the_dropout_of_the_base() -> None:
    """The direct path trains without the base's own dropout (GPT-2 has some), from the first step to the last."""
    base = tiny.gpt2()
    base.transformer.drop.p = 0.5
    adapted = models.adapt(base.requires_grad_(False), policy.Lora(), 0)
    selection.public_loss(adapted, [Example("e", "u", (0, 5, 6, 7), (-100, 5, 6, 7))], 1)
    assert not any(module.training for module in adapted.modules())
