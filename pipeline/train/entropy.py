"""Randomness that the promise rests on: which units are drawn, and the noise.

Both come from the operating system's cryptographic generator, never from a seed: a reader who could guess the seed could
subtract the noise. (`torch.Generator` on the CPU keeps 32 bits of its seed, and its Mersenne Twister can be run backwards.)
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

Entropy = Callable[[int], bytes]
"""`entropy(n)` gives n random bytes; tests may pass a repeatable one."""


def uniform(count: int, entropy: Entropy = os.urandom) -> np.ndarray:
    """`count` independent uniforms on [0, 1) with 53 random bits each, shape [count], float64."""
    return (np.frombuffer(entropy(8 * count), np.uint64) >> np.uint64(11)) * 2.0**-53


def normal(count: int, entropy: Entropy = os.urandom) -> np.ndarray:
    """`count` independent standard normals, shape [count], float64, hardened against floating-point attacks.

    Each is half the sum of four Box–Muller normals, so that its low bits betray nothing about the sum that it hides
    (Holohan and Braghin 2021, section 5.1; Opacus's secure mode does the same). Of each Box–Muller pair both are used: they
    are independent, and they fall into different sums.
    """
    pairs = 2 * count
    radius = np.sqrt(-2.0 * np.log1p(-uniform(pairs, entropy)))
    angle = 2.0 * np.pi * uniform(pairs, entropy)
    cosines = (radius * np.cos(angle)).reshape(2, count).sum(0)
    sines = np.roll((radius * np.sin(angle)).reshape(2, count).sum(0), 1)
    return (cosines + sines) / 2.0
