"""A white-box test of the private step: crafted gradients go through it, and an attacker tells who was in better than allowed.

    run(seed=0)["correct"].flagged            # False
    run(seed=0)["no clipping"].flagged        # True

Each canary is a record whose gradient is made to be one direction of its own, ten clipping norms long. The real sampler, clip,
noise and optimizer then take the steps of a small model, and the attacker sees every noisy gradient that the optimizer gets.
Three checks, fixed beforehand, each with a p-value; one below a third of α flags the step:

    likelihood           Guess in where the parts of all gradients along a canary's direction are likelier of one that is in.
                         On the stated mechanism these parts are independent (the directions hardly overlap), and each guess is
                         right with probability (1 + TV)/2 at most: a binomial test.
    change over steps    Guess by how much that part changes from step to step: the one-run audit of the mechanism's own
                         trade-off curve, which holds whatever depends on what.
    neighbour's length   Independent single steps on short records, with a long one among them by a coin: a binomial test.

The same step with a planted fault must be flagged, or a clean result would mean nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from peft import PeftModel
from scipy import special, stats
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.audit import epsilon, one_run_fdp
from pipeline.folders import Progress, Value, silent
from pipeline.models import adapt
from pipeline.policy import Lora
from pipeline.train.entropy import SYSTEM, Entropy
from pipeline.train.examples import IGNORED, Example
from pipeline.train.gradients import UnitGradients
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.sampling import PoissonSampler, microbatches
from pipeline.train.tape import Tape

Fault = Literal["no noise", "no clipping", "wrong sampling rate", "reused noise", "batch-normalised loss"]
FAULTS: tuple[Fault, ...] = ("no noise", "no clipping", "wrong sampling rate", "reused noise", "batch-normalised loss")

ALPHA = 0.001
CHECKS = ("likelihood", "change over steps", "neighbour's length")

_CANARIES, _GUESSES, _STEPS, _BATCH, _NOISE = 1600, 800, 80, 80, 1.0
_LENGTH = 10.0
_TRIALS, _SHORT, _WIDE = 80, 16, 48
_VOCABULARY = 64


class Tested(Value):
    """What the three attacks found on one step: p-values by check, and whether one lies below α over their number."""

    p_values: dict[str, float]
    flagged: bool
    seconds: float


def run(
    seed: int | None = None, *, alpha: float = ALPHA, entropy: Entropy = SYSTEM, progress: Progress = silent
) -> dict[str, Tested]:
    """Test the correct step (under the name `correct`) and the same with each planted fault.

    Args:
        seed: of directions and coins; None draws them anew. The noise is the training's own.
        alpha: probability that a correct step is flagged, at most.
        entropy: bytes of sampling and noise; tests give repeatable ones.
        progress: told steps tested of six.
    """
    found = {}
    for done, fault in enumerate((None, *FAULTS)):
        progress(done, 1 + len(FAULTS), step=fault or "correct")
        began = time.monotonic()
        rng = np.random.default_rng(seed)
        p_values = _canaries(fault, rng, entropy) | _neighbours(fault, rng, entropy)
        flagged = min(p_values.values()) < alpha / len(CHECKS)
        found[fault or "correct"] = Tested(p_values=p_values, flagged=flagged, seconds=time.monotonic() - began)
    progress(1 + len(FAULTS), 1 + len(FAULTS))
    return found


def passed(found: dict[str, Tested]) -> bool:
    """Whether the correct step is not flagged and every planted fault is."""
    return all(tested.flagged is (name != "correct") for name, tested in found.items())


class _Crafted(UnitGradients):
    """The direct path, with the gradients of some units replaced before they are clipped, and perhaps a fault."""

    def __init__(self, model: PeftModel, norm: float, fault: Fault | None, directions: torch.Tensor | None = None) -> None:
        super().__init__(model, math.inf if fault == "no clipping" else norm, 0)
        self._fault, self._directions = fault, directions
        self._units: Sequence[Sequence[Example]] = ()
        self._order = _trained(model)

    def add(self, units: Sequence[Sequence[Example]]) -> float:
        self._units = units
        return super().add(units)

    def _tape(self, owners: torch.Tensor, units: int) -> Tape:
        tape = _CraftedTape(owners, units)
        if self._directions is not None:
            rows = self._directions[[int(unit[0].id) for unit in self._units]]
            parts = rows.split([parameter.numel() for parameter in self._order], dim=1)
            tape.crafted = dict(zip(self._order, parts, strict=True))
        if self._fault == "batch-normalised loss":
            counts = torch.tensor([float(sum(label != IGNORED for label in unit[0].labels)) for unit in self._units])
            tape.shares = counts / counts.sum()
        return tape


class _CraftedTape(Tape):
    crafted: dict[nn.Parameter, torch.Tensor] | None = None
    shares: torch.Tensor | None = None

    def add(self, parameter: nn.Parameter, gradient: torch.Tensor) -> None:
        if self.crafted is not None:
            gradient = self.crafted[parameter].view_as(gradient)
        if self.shares is not None:  # the mean over all tokens of the batch, as Hugging Face models take it
            gradient = gradient * self.shares.view(-1, *[1] * (gradient.dim() - 1))
        super().add(parameter, gradient)


class _Reused:
    """Entropy that gives each step the bytes of the first one again, once it is rewound."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy, self._first, self._next = entropy, [], 0

    def __call__(self, buffer: memoryview) -> None:
        if self._next == len(self._first):
            self._entropy(buffer)
            self._first.append(bytes(buffer))
        buffer[:] = self._first[self._next]
        self._next += 1

    def rewind(self) -> None:
        """Start again from the first bytes."""
        self._next = 0


def _canaries(fault: Fault | None, rng: np.random.Generator, entropy: Entropy) -> dict[str, float]:
    """p-values of the stated mechanism from gradient canaries over all steps of one run."""
    mechanism = Mechanism(
        unit="record", units=_CANARIES, expected_batch=_BATCH, steps=_STEPS, noise_multiplier=_NOISE, clipping_norm=1.0,
        delta=1e-5,
    )  # fmt: skip
    model = _model()
    trained = _trained(model)
    size = sum(parameter.numel() for parameter in trained)
    directions = torch.from_numpy(rng.standard_normal((_CANARIES, size), np.float32))
    directions *= _LENGTH / directions.norm(dim=1, keepdim=True)
    coins = rng.random(_CANARIES) < 0.5
    examples = [_example(str(row), 3, rng) for row in np.flatnonzero(coins)]
    drawn = mechanism.model_copy(update={"expected_batch": 2 * _BATCH}) if fault == "wrong sampling rate" else mechanism
    sampler = PoissonSampler(examples, drawn, 1, absent=_CANARIES - len(examples), entropy=entropy)
    optimizer = _Optimizer(trained, mechanism, fault, entropy, 1e-3)
    seen = np.zeros((_STEPS, _CANARIES))
    with (gradients := _Crafted(model, mechanism.clipping_norm, fault, directions)).attached():
        for step in range(_STEPS):
            for group in microbatches(sampler.draw(), 4096):
                gradients.add(group)
            optimizer.step()
            seen[step] = (directions @ _released(trained)).numpy() * (_BATCH / _LENGTH)
    rate, variance = mechanism.sampling_rate, mechanism.noise_multiplier**2
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (seen - 0.5) / variance).sum(0)  # at a clipping norm of 1
    right = int(((ratio > 0) == coins).sum())
    most = (1 + one_run_fdp.total_variation(mechanism, _STEPS)) / 2
    changed = epsilon.count_correct(seen.var(0), coins, _GUESSES)
    curve = one_run_fdp.of_mechanism(mechanism, _STEPS)
    return {
        "likelihood": float(stats.binom.sf(right - 1, _CANARIES, most)),
        "change over steps": one_run_fdp.p_value(curve, _CANARIES, _GUESSES, changed),
    }


def _neighbours(fault: Fault | None, rng: np.random.Generator, entropy: Entropy) -> dict[str, float]:
    """p-value from independent single steps on short records, with a long one among them or not by a coin.

    Every unit enters (q = 1), so that the step is a Gaussian mechanism, on which any attacker is right with probability
    Φ(1/2σ) at most. The clipping norm lies just below the short records' share of a loss that is taken over the whole batch.
    """
    model = _model()
    trained = _trained(model)
    short = _example("short", 3, rng)
    records = [[short] for _ in range(_SHORT)]
    long = [_example("long", _WIDE, rng)]
    with (plain := UnitGradients(model, math.inf, 0)).attached():
        direction = plain.unclipped([[short]])
    norm = 0.9 * float(direction.norm()) / (_SHORT + 1)
    direction /= direction.norm()
    mechanism = Mechanism(
        unit="record", units=_SHORT + 1, expected_batch=_SHORT + 1, steps=1, noise_multiplier=2.0, clipping_norm=norm,
        delta=1e-5,
    )  # fmt: skip
    optimizer = _Optimizer(trained, mechanism, fault, entropy, 0.0)
    coins = rng.random(_TRIALS) < 0.5
    seen = np.zeros(_TRIALS)
    with (gradients := _Crafted(model, norm, fault)).attached():
        levels = []
        for present in (False, True):  # the attacker knows the code and the short records: what he would see without noise
            gradients.add([*records, long] if present else records)
            levels.append(float(direction @ torch.cat([parameter.summed_grad.flatten() for parameter in trained])))  # type: ignore[operator]
            for parameter in trained:
                parameter.summed_grad = None  # type: ignore[attr-defined]
        for trial, present in enumerate(coins):
            gradients.add([*records, long] if present else records)
            optimizer.step()
            seen[trial] = float(direction @ _released(trained)) * (_SHORT + 1)
    guesses = (seen > sum(levels) / 2) == (levels[1] > levels[0])
    right = int((guesses == coins).sum())
    most = float(special.ndtr(1 / (2 * mechanism.noise_multiplier)))
    return {"neighbour's length": float(stats.binom.sf(right - 1, _TRIALS, most))}


def _model() -> PeftModel:
    """A small Llama with fresh adapters: a few thousand adapted weights, so that random directions hardly overlap."""
    config = LlamaConfig(
        vocab_size=_VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return adapt(model, Lora(), 0)


def _trained(model: PeftModel) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class _Optimizer(UnitOptimizer):
    """The real optimizer, perhaps with a fault in its noise; `step` and all that it does are the training's own."""

    def __init__(
        self, trained: list[nn.Parameter], mechanism: Mechanism, fault: Fault | None, entropy: Entropy, rate: float
    ) -> None:
        self._reused = _Reused(entropy) if fault == "reused noise" else None
        super().__init__(torch.optim.SGD(trained, lr=rate), mechanism, self._reused or entropy)
        if fault == "no noise":
            self.noise_multiplier = 0.0

    def add_noise(self) -> None:
        if self._reused is not None:
            self._reused.rewind()
        super().add_noise()


def _released(trained: list[nn.Parameter]) -> torch.Tensor:
    """The noisy gradient that the optimizer stepped along, [weights]."""
    return torch.cat([parameter.grad.flatten() for parameter in trained if parameter.grad is not None])


def _example(name: str, length: int, rng: np.random.Generator) -> Example:
    ids = tuple(rng.integers(1, _VOCABULARY, length).tolist())
    return Example(name, name, ids, (IGNORED, *ids[1:]))
