"""Retries and timeouts of the stages, in one table."""

from typing import NamedTuple


class Rule(NamedTuple):
    """How often a stage is tried again after a fault that may pass, the hours it may take, and its share of a run's work."""

    retries: int
    hours: int
    share: int


# A stage is tried again only where repeating it costs no privacy and draws nothing anew: plant flips the canaries' coins,
# reserve takes from the budget, and each step of training spends. The audit draws by the sealed seed, so it comes out the same.
# Only a `TransientError` is tried again: wrong input, a wrong policy and a full disk do not mend themselves. A stage that takes
# longer than its hours is stopped as Ctrl-C would stop it, and the next run goes on from what it has done.
RULES = {
    "read": Rule(2, 12, 2),
    "pretrain": Rule(2, 168, 20),
    "probe": Rule(0, 1, 1),
    "scrub": Rule(2, 72, 20),
    "plant": Rule(0, 6, 3),
    "reserve": Rule(0, 6, 2),
    "train": Rule(0, 168, 45),
    "audit": Rule(2, 72, 20),
    "judge": Rule(2, 1, 1),
    "report": Rule(2, 2, 4),
    "publish": Rule(2, 2, 2),
    "hold": Rule(2, 2, 2),
    "discard": Rule(2, 2, 2),
}
DELAYS = [10, 60]
"""Seconds before a stage is tried again: first, and from then on."""
