"""Opacus's PRV accountant without the rest of Opacus, which imports PyTorch (two seconds that a plan would wait for).

    >>> round(epsilon(sampling_rate=0.0128, noise_multiplier=0.8, steps=240, delta=1e-5), 2)
    2.35

Opacus's accountants are NumPy and SciPy; only their abstract base class names an optimizer, and that imports everything. So
the folder of the accountants is imported as a package of another name, with a base class of its own. The arithmetic is
Opacus's, file by file; a test holds the figures to those of `opacus.accountants.PRVAccountant`.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_ALIAS = f"{__name__}_opacus_accountants"


class _History:
    """What an accountant takes from Opacus's `IAccountant`: its list of (noise multiplier, sampling rate, steps)."""

    def __init__(self) -> None:
        self.history: list[tuple[float, float, int]] = []


def epsilon(*, sampling_rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """ε at `delta` of a Poisson-subsampled Gaussian mechanism by privacy random variables (Gopi, Lee, Wutschitz 2021)."""
    accountant = _accountant()()
    accountant.history = [(noise_multiplier, sampling_rate, steps)]
    return float(accountant.get_epsilon(delta))


@cache
def _accountant() -> Any:
    """The class `PRVAccountant`, imported on first use."""
    opacus = find_spec("opacus")
    if opacus is None or not opacus.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'opacus': install hushtune's dependencies.", name="opacus")
    package, base = ModuleType(_ALIAS), ModuleType(f"{_ALIAS}.accountant")
    package.__path__ = [str(Path(opacus.submodule_search_locations[0]) / "accountants")]
    base.__dict__["IAccountant"] = _History
    sys.modules.update({_ALIAS: package, base.__name__: base})
    return import_module(f"{_ALIAS}.prv").PRVAccountant
