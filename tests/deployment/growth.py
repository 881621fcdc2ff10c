"""Whether a process grows: its memory and open files over many runs, as a slope that a few outliers do not move."""

from __future__ import annotations

from itertools import combinations
from statistics import median
from typing import NamedTuple

import psutil

MEMORY = 0.5  # MB a run: a server's caches may still fill a little; a leak of what a run sends is more
FILES = 0.1  # open files a run


class Sample(NamedTuple):
    """Resident memory in MB, and open file descriptors."""

    memory: float
    files: float


class Growth(NamedTuple):
    """Slopes a run, in MB and in files."""

    memory: float
    files: float

    @property
    def flat(self) -> bool:
        return self.memory <= MEMORY and self.files <= FILES


def sample(process: psutil.Process) -> Sample:
    return Sample(process.memory_info().rss / 1e6, process.num_fds())


def growth(samples: list[Sample], warm: int) -> Growth:
    """The slope of each figure after `warm` samples: the median of the slopes between all pairs (Theil and Sen)."""
    assert len(samples) >= warm + 5, "too few samples to see a slope"
    pairs = list(combinations(range(warm, len(samples)), 2))

    def slope(figure: str) -> float:
        return median((getattr(samples[b], figure) - getattr(samples[a], figure)) / (b - a) for a, b in pairs)

    return Growth(slope("memory"), slope("files"))
