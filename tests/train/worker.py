"""What `test_distributed` runs in two processes under torchrun: the real stage, watched, and probes of the team.

The folder of the run says by probe.json what to do: {"draws": [[record, …], …] or null, "checkpoint": seconds}. With draws, the
units of each step are given and the noise is zero, so that one process can do the same.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import StageError
from pipeline.ledger import Ledger
from pipeline.train import __main__ as entry
from pipeline.train import checkpoint
from pipeline.train import optimizer as optimizer_module
from pipeline.train.distributed import Team, TeamOptimizer
from pipeline.train.entropy import normal
from pipeline.train.examples import Example
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.sampling import PoissonSampler

DRAWS, UNITS, BATCH = 400, 40, 10


def mechanism(**changes: Any) -> Mechanism:
    known = {"unit": "record", "units": UNITS, "expected_batch": BATCH, "steps": 4, "delta": 1e-5}
    return Mechanism(**{**known, "noise_multiplier": 1.7, "clipping_norm": 0.5, **changes})


class EachNoises(TeamOptimizer):
    """The mistake: every process adds noise."""

    def add_noise(self) -> None:
        if not self._noises:
            for parameter in self.params:
                scale = self.noise_multiplier * self.max_grad_norm
                parameter.summed_grad = parameter.summed_grad + scale * normal(parameter.numel()).view_as(parameter).float()
        super().add_noise()


def force(draws: list[list[int]]) -> None:
    """Draw these records, each a unit, in turn; and no noise."""
    left = iter(draws)
    PoissonSampler.draw = lambda self: [[self.examples[index]] for index in next(left)]
    optimizer_module.add_normal = lambda total, *_: total


def probes(team: Team) -> dict[str, Any]:
    """What one process sees of the team."""
    found: dict[str, Any] = {}
    for name, kind in (("noise", TeamOptimizer), ("each_noises", EachNoises)):
        parameter = torch.nn.Parameter(torch.zeros(100_000))
        optimizer = kind(torch.optim.SGD([parameter], lr=1.0), mechanism(expected_batch=1))
        parameter.summed_grad = torch.full_like(parameter, float(team.rank + 1))
        optimizer.step()
        found[name] = {"mean": -float(parameter.mean()), "std": float(parameter.std()), "first": parameter[:5].tolist()}
    examples = [Example(f"e{i}", f"e{i}", (0, 2, 3), (-100, 2, 3)) for i in range(UNITS)]
    sampler = PoissonSampler(examples, mechanism(), 1)
    drawn = [team.draw(sampler) for _ in range(DRAWS)]
    found["drawn"] = [sorted(unit[0].id for unit in units) for units in drawn]
    found["shares"] = [sorted(unit[0].id for unit in team.share(units)) for units in drawn]
    weight = torch.nn.Parameter(torch.ones(4))
    team.check([weight])
    weight.data[2] += 1e-7 * team.rank
    try:
        team.check([weight])
    except StageError as error:
        found["differ"] = str(error)
    return found


def watch(seen: list[tuple[str, float]]) -> None:
    """Note when a spend has been recorded and when an update is applied."""
    spend, step = Ledger.spend, UnitOptimizer.pre_step

    def slow_spend(self: Ledger, *args: Any) -> None:
        time.sleep(0.05)  # an update that did not wait for it would come first
        spend(self, *args)
        seen.append(("spend", time.monotonic()))

    def noted(self: UnitOptimizer, closure: object = None) -> bool:
        done = step(self, closure)
        seen.append(("update", time.monotonic()))
        return done

    Ledger.spend, UnitOptimizer.pre_step = slow_spend, noted


def train(folder: Path, team: Team) -> None:
    """The real entry point's training, between the probes."""
    wanted = json.loads((folder / "probe.json").read_text())
    checkpoint.SECONDS = wanted["checkpoint"]
    found: dict[str, Any] = {}
    if wanted["draws"] is not None:
        found = probes(team)
        force(wanted["draws"])
    seen: list[tuple[str, float]] = []
    watch(seen)
    real(folder, team)
    (folder / f"found-{team.rank}.json").write_text(json.dumps(found | {"seen": seen}))


if __name__ == "__main__":
    real, entry._train = entry._train, train
    sys.exit(entry.main(sys.argv[1:]))
