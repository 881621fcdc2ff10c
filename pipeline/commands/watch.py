"""`hushtune health | metrics`: what a monitor asks. Both read only, and import nothing heavy."""

from __future__ import annotations

import argparse

from pipeline.commands.common import answer
from pipeline.folders import check_parent, write_text


def health(arguments: argparse.Namespace) -> int:
    """Say what is well and what is not; 1 if anything is not."""
    from pipeline.health import look

    found = look(arguments.home.absolute(), policy=arguments.policy, oldest=arguments.oldest)
    width, lines = max(len(one.name) for one in found), []
    for one in found:
        lines.append(f"{'✓' if one.well else '✗'} {one.name:<{width}}  {one.found}")
        if not one.well and one.mend:
            lines.append(f"  {'':<{width}}  → {one.mend}")
    well = all(one.well for one in found)
    answer(arguments, {"well": well, "checks": [one.model_dump(mode="json") for one in found]}, "\n".join(lines))
    return 0 if well else 1


def metrics(arguments: argparse.Namespace) -> int:
    """Print the figures of a home for Prometheus, or write them to a file."""
    from pipeline.metrics import gather, text

    found = gather(arguments.home.absolute())
    said = text(found)
    if arguments.output is not None:
        check_parent(arguments.output)
        write_text(arguments.output, said, mode=0o644)  # node_exporter runs as another user
        said = f"Wrote {arguments.output}."
    content = {one.name: [{"labels": dict(labels), "value": value} for labels, value in one.samples] for one in found}
    answer(arguments, content, said.rstrip("\n"))
    return 0
