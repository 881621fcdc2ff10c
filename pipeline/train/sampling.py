"""Poisson sampling of privacy units, and the physical micro-batches of one draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.train.entropy import SYSTEM, Entropy, uniform
from pipeline.train.examples import Even, Example, longest
from pipeline.train.mechanism import Mechanism


class PoissonSampler:
    """Draws each unit independently with the mechanism's sampling rate, and at most `records_per_unit` of its records.

    A draw may be empty or far larger than the expected batch: both are part of the mechanism.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        mechanism: Mechanism,
        records_per_unit: int,
        *,
        absent: int = 0,
        entropy: Entropy = SYSTEM,
    ) -> None:
        """`absent` counts the units that the mechanism counts and that hold no record: the canaries left out by their coins."""
        owned: dict[str, list[Example]] = defaultdict(list)
        for index, example in enumerate(examples):
            owned[example.unit if mechanism.unit == "person" else f"{index}"].append(example)
        if len(owned) + absent != mechanism.units:
            raise ValueError(f"{len(owned) + absent} units were given and the mechanism is calibrated for {mechanism.units}")
        self.examples = examples
        self._positions = {id(example): index for index, example in enumerate(examples)}
        self._units = list(owned.values())
        self._rate = mechanism.sampling_rate
        self._most = records_per_unit
        self._entropy = entropy

    def draw(self) -> list[list[Example]]:
        """The records of each unit drawn for one step."""
        chosen = np.flatnonzero(uniform(len(self._units), self._entropy) < self._rate)
        return [self._some(self._units[index]) for index in chosen]

    def position(self, example: Example) -> int:
        """Index in `examples` of a record that was drawn."""
        return self._positions[id(example)]

    def _some(self, records: list[Example]) -> list[Example]:
        if len(records) <= self._most:
            return records
        order = np.argsort(uniform(len(records), self._entropy))
        return [records[index] for index in order[: self._most]]


def microbatches(units: Sequence[list[Example]], tokens: int, even: Even | None = None) -> Iterator[list[list[Example]]]:
    """Split a draw into groups of whole units that hold at most `tokens` padded tokens, similar lengths together.

    A unit is never split, since its records are clipped together; one that is larger than `tokens` makes a group alone. With
    `even`, a group holds units of one width only.
    """
    group: list[list[Example]] = []
    rows = width = 0
    for unit in sorted(units, key=longest, reverse=True):
        own = even.width(longest(unit)) if even else longest(unit)
        if group and ((rows + len(unit)) * width > tokens or (even and own != width)):
            yield group
            group, rows = [], 0
        width = width if group else own
        group.append(unit)
        rows += len(unit)
    if group:
        yield group
