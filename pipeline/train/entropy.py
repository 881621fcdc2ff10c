"""Randomness that the promise rests on: which units are drawn, and the noise.

Both come from AES-256 in counter mode under a key that the operating system's generator gives each process and nobody ever
sees: never from a seed, since a reader who could guess the seed could subtract the noise, and never resumed. (`torch.Generator`
keeps 32 bits of its seed on the CPU, and its Mersenne Twister can be run backwards.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

_CHUNK = 2**16  # normals made at a time: few enough that their uniforms stay in a processor's cache

Entropy = Callable[[int], bytes]
"""`entropy(n)` gives n random bytes; tests may pass a repeatable one."""


class _Keystream:
    """Random bytes from a key of this process alone: a fork makes its own, so that no two processes share noise."""

    def __init__(self) -> None:
        self._process = -1

    def __call__(self, count: int) -> bytes:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._encryptor = Cipher(AES(os.urandom(32)), CTR(os.urandom(16))).encryptor()
        return self._encryptor.update(bytes(count))


SYSTEM: Entropy = _Keystream()


def uniform(count: int, entropy: Entropy = SYSTEM) -> np.ndarray:
    """`count` independent uniforms on [0, 1) with 53 random bits each, shape [count], float64."""
    return (np.frombuffer(entropy(8 * count), np.uint64) >> np.uint64(11)) * 2.0**-53


def normal(count: int, entropy: Entropy = SYSTEM, device: torch.device | None = None) -> torch.Tensor:
    """`count` independent standard normals, shape [count], float64 on `device`, hardened against floating-point attacks.

    Each is half the sum of four Box–Muller normals, so that its low bits betray nothing about the sum that it hides
    (Holohan and Braghin 2021, section 5.1; Opacus's secure mode does the same). Of each Box–Muller pair both are used: they
    are independent, and they fall into different sums.
    """
    made = torch.empty(count, dtype=torch.float64, device=device)
    for part in made.split(_CHUNK if made.device.type == "cpu" else max(1, count)):
        part.copy_(_normal(len(part), entropy, made.device))
    return made


def _normal(count: int, entropy: Entropy, device: torch.device) -> torch.Tensor:
    uniforms = torch.from_numpy(uniform(4 * count, entropy)).to(device).view(2, 2 * count)
    radius = uniforms[0].neg_().log1p_().mul_(-2.0).sqrt_()
    angle = uniforms[1].mul_(2.0 * math.pi)
    cosines = angle.cos().mul_(radius).view(2, count).sum(0)
    sines = angle.sin_().mul_(radius).view(2, count).sum(0).roll(1)
    return cosines.add_(sines).div_(2.0)
