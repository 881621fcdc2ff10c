"""Data-parallel training: the same mechanism, computed by several processes.

Nothing of the mechanism depends on their number. Process 0 draws the units as one process would and tells the others: the
sampling law is that of one process by construction. Each process clips the units that it takes; the clipped sums are added
in float64; process 0 adds the noise to the whole sum once, rounds once, and sends out what every process then steps with.
Those are the semantics of Opacus's `DistributedDPOptimizer` (noise on rank 0 only), with the noise after the sum instead of
before it, so that the hardening against floating-point attacks holds for the sum of all.

Process 0 alone speaks to the ledger. It records a step before it sends the noisy gradient without which no other process can
take that step: no update is applied anywhere before its spend is recorded.

Gradients travel between the processes before they are noised, and the draw is secret: on one machine they stay on its loopback
interface; between machines the network must be as trusted as the machines are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from peft import PeftModel

from pipeline import folders
from pipeline.errors import StageError, UsageError
from pipeline.folders import Value
from pipeline.train.entropy import SYSTEM, Entropy
from pipeline.train.examples import Even, Example
from pipeline.train.fallback import Gradients, gradients_for
from pipeline.train.mechanism import Mechanism
from pipeline.train.optimizer import UnitOptimizer
from pipeline.train.reuse import EntryStates
from pipeline.train.sampling import PoissonSampler

Unit = list[Example]
T = TypeVar("T", bound=Value)
R = TypeVar("R")

LOST = (
    "A process of the training ended or fell silent, so all were stopped: take the run up again, with any number of processes; "
    "it goes on from its last checkpoint, and what was spent stays charged."
)
_PATIENCE = timedelta(minutes=10)  # a process that is silent for so long while others wait for it has failed


class LostProcess(StageError):
    """Another process of the training has ended or is silent."""


class Alone:
    """A training that one process does alone. `leads` is true for the process that speaks to the ledger and writes files."""

    rank, size = 0, 1
    promises = True  # privacy; `plain.Unprotected` does not

    @property
    def leads(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def stage(self, folder: Path, kind: type[T], inputs: Mapping[str, Any], work: Callable[[Path], Any]) -> T:
        """As `folders.stage`; of several processes the leading one does it, and the others do their part of `work`."""
        return folders.stage(folder, kind, inputs, work)

    def optimizer(self, inner: torch.optim.Optimizer, mechanism: Mechanism) -> UnitOptimizer:
        """The private optimizer around `inner`."""
        return UnitOptimizer(inner, mechanism)

    def gradients(
        self, model: PeftModel, clipping_norm: float, padding: int, states: EntryStates | None, even: Even
    ) -> Gradients:
        """What adds up the clipped gradients of the units."""
        return gradients_for(model, clipping_norm, padding, states, even)

    def begin(self, taken: int, parameters: Sequence[torch.nn.Parameter], optimizer: UnitOptimizer) -> int:
        """Start from the leading process's weights and optimizer state; returns its count of steps taken."""
        return taken

    def draw(self, sampler: PoissonSampler) -> list[Unit]:
        """The units of one step: one draw, whatever the number of processes."""
        return sampler.draw()

    def share(self, units: Sequence[Unit]) -> list[Unit]:
        """Those units of a draw that this process takes."""
        return list(units)

    def totals(self, *figures: float) -> tuple[float, ...]:
        """Sums of figures over the processes."""
        return figures

    def agree(self, word: bool) -> bool:
        """The leading process's word."""
        return word

    def check(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Raise StageError unless all processes hold the same weights, bit for bit."""


ALONE = Alone()


class Team(Alone):
    """One process of several, all of which hold the same examples in the same order."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def stage(self, folder: Path, kind: type[T], inputs: Mapping[str, Any], work: Callable[[Path], Any]) -> T:  # noqa: D102
        partial = folder.with_name(folder.name + ".partial")
        if not self.leads:
            while self.agree(False):
                work(partial)
            value = folders.finished(folder, kind)
            if value is None:
                raise StageError(f"Process {self.rank} does not see {folder.name} of the run: keep runs on shared storage.")
            return value

        def led(partial: Path) -> Any:
            self.agree(True)
            return work(partial)

        value = folders.stage(folder, kind, inputs, led)
        self.agree(False)
        return value

    def optimizer(self, inner: torch.optim.Optimizer, mechanism: Mechanism) -> UnitOptimizer:  # noqa: D102
        return TeamOptimizer(inner, mechanism)

    def begin(self, taken: int, parameters: Sequence[torch.nn.Parameter], optimizer: UnitOptimizer) -> int:  # noqa: D102
        taken, state = self._from_lead((taken, optimizer.state_dict()))
        if not self.leads:
            optimizer.load_state_dict(state)
        with _together():
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)
        return taken

    def draw(self, sampler: PoissonSampler) -> list[Unit]:  # noqa: D102
        drawn = [[sampler.position(record) for record in unit] for unit in sampler.draw()] if self.leads else None
        return [[sampler.examples[index] for index in unit] for unit in self._from_lead(drawn) or ()]

    def share(self, units: Sequence[Unit]) -> list[Unit]:
        """Equal numbers of units for each process; a unit comes back to the same one where there is room.

        So a process finds the frozen states that it has kept (`reuse`). Every unit is in exactly one share.
        """
        most = -(-len(units) // self.size)
        shares: list[list[Unit]] = [[] for _ in range(self.size)]
        surplus = []
        for unit in units:
            own = shares[int.from_bytes(hashlib.blake2b(unit[0].id.encode(), digest_size=4).digest()) % self.size]
            (own if len(own) < most else surplus).append(unit)
        for unit in surplus:
            min(shares, key=len).append(unit)
        return shares[self.rank]

    def totals(self, *figures: float) -> tuple[float, ...]:  # noqa: D102
        held = torch.tensor(figures, dtype=torch.float64)
        with _together():
            dist.all_reduce(held)
        return tuple(held.tolist())

    def agree(self, word: bool) -> bool:  # noqa: D102
        return self._from_lead(word)

    def check(self, parameters: Sequence[torch.nn.Parameter]) -> None:  # noqa: D102
        own = hashlib.sha256()
        for parameter in parameters:
            own.update(parameter.detach().cpu().numpy().tobytes())
        found: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(found, own.hexdigest())
        if len(set(found)) > 1:
            raise StageError(
                f"The {self.size} processes of the training hold {len(set(found))} different adapters: train on machines and "
                "versions that are alike, or on one process; what was spent stays charged."
            )

    def _from_lead(self, content: R) -> R:
        """What the leading process holds, in all of them."""
        held = [content]
        with _together():
            dist.broadcast_object_list(held, 0)
        return held[0]


class TeamOptimizer(UnitOptimizer):
    """`UnitOptimizer` over several processes: sums added in float64, noised by process 0 alone, the same gradient for all."""

    def __init__(self, optimizer: torch.optim.Optimizer, mechanism: Mechanism, entropy: Entropy = SYSTEM) -> None:
        super().__init__(optimizer, mechanism, entropy)
        self._noises = dist.get_rank() == 0

    def add_noise(self) -> None:
        """Write the sum over all processes plus Gaussian noise, drawn once, into every process's `grad`."""
        parameters: list[Any] = self.params
        sizes = [parameter.numel() for parameter in parameters]
        total = torch.cat([parameter.summed_grad.flatten() for parameter in parameters]).double()
        with _together():
            dist.reduce(total, 0)
        for parameter, part in zip(parameters, total.split(sizes), strict=True):
            parameter.summed_grad = part.view_as(parameter)
        if self._noises:
            super().add_noise()
        noisy = torch.cat([self._sent(parameter) for parameter in parameters])
        with _together():
            dist.broadcast(noisy, 0)
        for parameter, part in zip(parameters, noisy.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
            parameter.summed_grad = None

    def _sent(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """What goes into the broadcast: of process 0 the noisy gradient, of the others room for it."""
        held = parameter.grad if self._noises else None
        return torch.empty_like(parameter.detach()).flatten() if held is None else held.flatten()


@contextmanager
def joined() -> Iterator[Team]:
    """Join the processes that torchrun started: gloo, and NCCL beside it where there are GPUs, one for each process.

    Raises:
        UsageError: there are fewer GPUs on this machine than processes.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= found:
            raise UsageError(f"There are {found} GPUs here and more processes: start at most {found} processes on a machine.")
        torch.cuda.set_device(local)
    with _together():
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
    yield Team()
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


@contextmanager
def _together() -> Iterator[None]:
    """Around what the processes do together; gloo and NCCL raise RuntimeErrors of several kinds when one is lost."""
    try:
        yield
    except RuntimeError:
        lost = True
    else:
        lost = False
    if lost:
        raise LostProcess(LOST)
