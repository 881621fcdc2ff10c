"""Randomness that the promise rests on: which units are drawn, and the noise.

Both come from AES-256 in counter mode under a key that the operating system's generator gives each thread of each process and
nobody ever sees: never from a seed, since a reader who could guess the seed could subtract the noise, and never resumed.
(`torch.Generator` keeps 32 bits of its seed on the CPU, and its Mersenne Twister can be run backwards.)
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

_CHUNK = 2**16  # normals made at a time: few enough that their uniforms stay in a processor's cache
_BITS = 53  # of a uniform: all that a float64 can hold

Entropy = Callable[[memoryview], None]
"""`entropy(buffer)` fills a writable buffer with random bytes; tests may pass a repeatable one."""


class _Keystream(threading.local):
    """Random bytes from a key of this process and thread alone: a fork makes its own, so that no two ever share noise."""

    def __init__(self) -> None:
        self._process = -1
        self._zeros = b""

    def __call__(self, buffer: memoryview) -> None:
        if self._process != os.getpid():
            self._encryptor = Cipher(AES(os.urandom(32)), CTR(os.urandom(16))).encryptor()
            self._process = os.getpid()
        if len(self._zeros) < len(buffer):
            self._zeros = bytes(len(buffer))
        zeros = memoryview(self._zeros)[: len(buffer)]
        body = max(0, len(buffer) - 15)  # `update_into` wants room for a block more than it writes
        self._encryptor.update_into(zeros[:body], buffer)
        buffer[body:] = self._encryptor.update(zeros[body:])


SYSTEM: Entropy = _Keystream()


def uniform(count: int, entropy: Entropy = SYSTEM) -> np.ndarray:
    """`count` independent uniforms on [0, 1) with 53 random bits each, shape [count], float64."""
    return _integers(np.empty(count, np.int64), entropy) * 2.0**-_BITS


def _integers(made: np.ndarray, entropy: Entropy) -> np.ndarray:
    """Fill `made` int64 with independent uniforms on 0 … 2⁵³-1."""
    entropy(made.data.cast("B"))
    return np.bitwise_and(made, 2**_BITS - 1, out=made)


def normal(count: int, entropy: Entropy = SYSTEM, device: torch.device | None = None) -> torch.Tensor:
    """`count` independent standard normals, shape [count], float64 on `device`, hardened against floating-point attacks.

    Each is half the sum of four Box–Muller normals, so that its low bits betray nothing about the sum that it hides
    (Holohan and Braghin 2021, section 5.1; Opacus's secure mode does the same). Of each Box–Muller pair both are used: they
    are independent, and they fall into different sums.
    """
    return add_normal(torch.zeros(count, dtype=torch.float64, device=device), 1.0, entropy)


def add_normal(total: torch.Tensor, std: float, entropy: Entropy = SYSTEM) -> torch.Tensor:
    """Add `std` times independent `normal`s to `total` [n], in place; returns it.

    The sum is formed in float64 and rounded once: noise that was rounded first could betray what it is added to.
    """
    # Memory is taken once and used for every chunk: fresh memory costs more than the arithmetic on it.
    chunk = max(1, min(_CHUNK, len(total)) if total.device.type == "cpu" else len(total))
    integers = np.empty(4 * chunk, np.int64)
    work = torch.empty(6 * chunk, dtype=torch.float64, device=total.device)
    for part in total.split(chunk):
        drawn = _integers(integers[: 4 * len(part)], entropy)
        noise = _normal(torch.from_numpy(drawn), work[: 6 * len(part)])
        part.copy_(noise.mul_(std).add_(part))
    return total


def _normal(integers: torch.Tensor, work: torch.Tensor) -> torch.Tensor:
    """Normals [n] from uniforms on 0 … 2⁵³-1 [4n], made in room to work in [6n]: they last until that is used again."""
    count = len(integers) // 4
    radius, angle, cosine = work.view(3, 2 * count)
    first, second = integers.view(2, 2 * count)
    # u = (integer + 1)·2⁻⁵³ lies in (0, 1] and is exact; half of √(-2 log u) is √(-½ log u)
    radius.copy_(first).add_(1.0).mul_(2.0**-_BITS).log_().mul_(-0.5).sqrt_()
    angle.copy_(second).mul_(2.0 * math.pi * 2.0**-_BITS)
    torch.cos(angle, out=cosine).mul_(radius)
    sine = angle.sin_().mul_(radius)
    cosines, sines = cosine[:count].add_(cosine[count:]), sine[:count].add_(sine[count:])
    return cosines.add_(sines.roll(1))
