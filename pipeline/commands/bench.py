"""`hushtune bench`: ratios measured on this machine, interleaved in one process."""

from __future__ import annotations

import argparse
import warnings

from pipeline.commands.common import answer, columns, data_file, quiet, resolved_policy
from pipeline.errors import UsageError


def train(arguments: argparse.Namespace) -> int:
    """Time a private training step against stock LoRA without privacy and against Opacus."""
    from pipeline.bench.train import SHAPES, run

    warnings.filterwarnings("ignore")  # Opacus warns at every step of its hooks
    shapes = arguments.shape or ["smollm2-135m-gpu" if arguments.device == "cuda" else "nano"]
    for name in shapes:
        if name not in SHAPES:
            raise UsageError(f"There is no shape {name}: give --shape one of {', '.join(SHAPES)}.")
    rounds, memory = max(1, arguments.rounds), not arguments.no_memory
    result = run(shapes, rounds, arguments.threads, memory=memory, device=arguments.device)
    rows = []
    for name in shapes:
        found = result[name]
        for way, seconds in found["seconds"].items():
            ratio = found["seconds"]["stock"] / seconds
            peak = f"{found['peak_mb'][way]:,.0f} MB" if "peak_mb" in found else ""
            share = f"{found['matrix_share'][way]:.1%}" if "matrix_share" in found else ""
            rows.append((name, way, f"{seconds:.3f} s", f"{ratio:.2f} x stock", peak, share))
    answer(arguments, result, columns(rows, ("shape", "way", "step", "speed", "peak over model", "of matrix rate")))
    return 0


def scrub(arguments: argparse.Namespace) -> int:
    """Time the policy's detector against a plain loop over Presidio with the same model, on one core and on two."""
    quiet()
    policy, data = resolved_policy(arguments), data_file(arguments)
    from pipeline.bench.scrub import run

    result = run(
        data, policy, max(1, arguments.rounds), max(1, arguments.records), tuple(arguments.memory or ()), arguments.gold
    )
    rows = [
        (way, f"{taken:.2f} s", f"{result['records_per_second'][way]:,.0f} records/s", f"{result['ratios'].get(way, 1):.2f} x")
        for way, taken in result["seconds"].items()
    ]
    rows += [(f"{int(count):,} records", f"{peak:,.0f} MB", "", "") for count, peak in result["peak_mb"].items()]
    for way, found in (result["gold"] or {}).items():
        rows.append((f"{way} on gold", f"recall {found['token_recall']:.3f}", f"precision {found['token_precision']:.3f}", ""))
    answer(arguments, result, columns(rows, ("way", "round", "speed", "to plain")))
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Time the exact rank of a secret against scoring every candidate on its own."""
    from pipeline.bench.audit import COUNTS, SHAPES, run

    warnings.filterwarnings("ignore")
    shapes = arguments.shape or ["nano", "gpt2"]
    for name in shapes:
        if name not in SHAPES:
            raise UsageError(f"There is no shape {name}: give --shape one of {', '.join(SHAPES)}.")
    counts = sorted({count for count in arguments.canaries or COUNTS if count > 0})
    if len(counts) < 2:
        raise UsageError("One number of canaries shows no growth: give --canaries twice or more, with different numbers.")
    result = run(shapes, max(1, arguments.rounds), arguments.threads, batches=max(1, arguments.batches), counts=counts)
    rows = []
    for name in shapes:
        found = result[name]
        seconds, line = found["seconds"], found["canaries"]
        rows.append((name, f"{found['candidates']:,}", f"{seconds['packed']:.3f} s", f"{seconds['plain_all']:.1f} s",
                     f"{found['ratio']:.0f} x", f"{line['seconds_a_canary']:.3f} s"))  # fmt: skip
    heads = ("shape", "candidates", "packed", "one by one, scaled", "speed", "each canary")
    answer(arguments, result, columns(rows, heads))
    return 0
