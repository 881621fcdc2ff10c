"""Opacus's accountant, taken without Opacus: the same figures to the last bit, and no PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opacus.accountants import PRVAccountant

from pipeline.train import prv

MECHANISMS = [(0.0128, 0.8, 240, 1e-5), (0.256, 0.8317, 20, 4.8e-4), (0.001, 0.6, 3_000, 1e-7), (0.5, 4.0, 1, 1e-3)]


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), MECHANISMS)
def test_the_figures_are_those_of_opacus(rate: float, noise: float, steps: int, delta: float) -> None:
    whole = PRVAccountant()
    whole.history = [(noise, rate, steps)]
    found = prv.epsilon(sampling_rate=rate, noise_multiplier=noise, steps=steps, delta=delta)
    assert found == whole.get_epsilon(delta)
    assert found > prv.epsilon(sampling_rate=rate, noise_multiplier=2 * noise, steps=steps, delta=delta)


def test_neither_opacus_nor_pytorch_is_imported() -> None:
    """In a process of its own; imported afterwards, Opacus is whole, and its classes are its own."""
    code = (
        "import sys\nfrom pipeline.train import prv\n"
        "prv.epsilon(sampling_rate=0.1, noise_multiplier=1.0, steps=5, delta=1e-4)\n"
        "print([name for name in ('torch', 'opacus') if name in sys.modules])\n"
        "from opacus.accountants import IAccountant, PRVAccountant\n"
        "print(issubclass(PRVAccountant, IAccountant), 'torch' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == ["[]", "True True"]


def test_a_missing_opacus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prv, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="No module named 'opacus': install"):
        prv._accountant.__wrapped__()
