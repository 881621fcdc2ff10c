"""Training without privacy: stochastic gradient descent and nothing else, and never taken for a private training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline import models, policy
from pipeline.canaries import Planted
from pipeline.train import loop
from pipeline.train.loop import NO_PRIVACY, Trained, train
from pipeline.train.mechanism import Mechanism
from pipeline.train.plain import Unprotected

pytestmark = pytest.mark.usefixtures("quick")

STEPS, BATCH, RATE = 3, 16, 0.05


def run(planted: Planted, base: models.Base, folder: Path, **options: object) -> Trained:
    mechanism = Mechanism(
        unit="record", units=planted.train_units, expected_batch=BATCH, steps=STEPS, noise_multiplier=1.0, clipping_norm=0.1,
        delta=1e-3,
    )  # fmt: skip
    chosen = policy.load("default").override(
        train__learning_rate=RATE, train__expected_batch=BATCH, train__steps=STEPS, train__lora__layers="all",
        data__max_tokens=32,
    )  # fmt: skip
    return train(planted, base, mechanism, chosen, folder, claim="c", spend=lambda taken: None, **options)


def by_hand(planted: Planted, base: models.Base) -> dict[str, torch.Tensor]:
    """The same steps on every record, by autograd and Adam alone: the mean loss of each record's own tokens."""
    chosen = policy.load("default").override(data__max_tokens=32)
    model, tokenizer = models.load(base)
    adapted = models.adapt(model, policy.Lora(layers="all"), 0)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for example in loop.training_examples(planted, tokenizer, chosen, base):
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            logits = adapted(input_ids=ids).logits[0, :-1]
            (torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100) / BATCH).backward()
        optimizer.step()
    return {name: p.detach() for name, p in adapted.named_parameters() if p.requires_grad}


def distance(made: Trained, wanted: dict[str, torch.Tensor]) -> float:
    found = load_file(made.adapter / "adapter_model.safetensors")
    wanted = {name.replace(".default", ""): value for name, value in wanted.items()}
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)


def test_it_is_plain_sgd_on_the_same_schedule(planted, base, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.PoissonSampler, "draw", lambda self: [list(unit) for unit in self._units])
    wanted = by_hand(planted, base)
    plain = run(planted, base, tmp_path / "plain", team=Unprotected())
    assert distance(plain, wanted) < 1e-4
    private = run(planted, base, tmp_path / "private")  # the control: clipped and noised, it must not be so near
    assert distance(private, wanted) > 1e-2


def test_it_cannot_be_taken_for_a_private_training(planted, base, tmp_path):
    plain = run(planted, base, tmp_path / "trained", team=Unprotected())
    assert plain.epsilon == plain.epsilon_prv == NO_PRIVACY > 1e300
    assert math.isfinite(NO_PRIVACY)
    assert plain.group_epsilon == {}
    assert not (plain.folder / "privacy.json").exists()
    private = run(planted, base, tmp_path / "trained")  # nor does a private one find it finished in its place
    assert private.epsilon < NO_PRIVACY
    assert (private.folder / "privacy.json").exists()
