"""`hushtune scrub` and `hushtune recall`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from pipeline import runs
from pipeline.commands.common import answer, columns, data_file, quiet, resolved_policy, watched
from pipeline.errors import UsageError


def scrub(arguments: argparse.Namespace) -> int:
    """Write a data file's records again, in the shape they came in, with personal data replaced."""
    quiet()
    policy, data = resolved_policy(arguments), data_file(arguments)
    from pipeline import corpus as corpora
    from pipeline import scrub as scrubbing
    from pipeline.scrub.review import write_page

    where = arguments.output.absolute().parent
    if not where.is_dir():
        raise UsageError(f"The folder {where} does not exist: make it, or write elsewhere.")
    with tempfile.TemporaryDirectory(prefix=".hushtune-", dir=where) as name:
        folder = Path(name)
        with watched("read") as line:
            corpus = corpora.read(data, policy, folder / "corpus", progress=line, with_columns=True)
        with watched("scrub", "records", rated=True) as line:
            scrubbed = scrubbing.scrub(
                corpus, policy, folder / "scrubbed", probes=None, progress=line, key=scrubbing.key_for(policy, arguments.home)
            )
        scrubbing.export(scrubbed, corpus.shape, arguments.output, arguments.spans)
        page = arguments.output.with_name(f"{arguments.output.name}.review.html") if arguments.sample else None
        if page:
            write_page(scrubbed, corpus.folder / "records.jsonl", page, arguments.sample)
    replaced = sum(scrubbed.entities.values())
    content = {
        "output": str(arguments.output),
        "spans": str(arguments.spans) if arguments.spans else None,
        "records": scrubbed.records,
        "changed": scrubbed.changed,
        "entities": scrubbed.entities,
        "detector": scrubbed.detector,
        "operator": scrubbed.operator,
        "seconds": scrubbed.seconds,
        "rescanned_by": scrubbed.rescanned_by,
        "residual": scrubbed.residual,
        "review": str(page) if page else None,
    }
    text = f"{arguments.output}: {replaced:,} values replaced in {scrubbed.changed:,} of {scrubbed.records:,} records."
    answer(arguments, content, f"{text}\n{columns(sorted(scrubbed.entities.items()))}" if scrubbed.entities else text)
    return 0


def recall(arguments: argparse.Namespace) -> int:
    """Measure the policy's detector against gold spans, or read what a reviewer ticked."""
    quiet()
    from pipeline.scrub.review import is_ticks

    if is_ticks(arguments.gold):
        return _reviewed(arguments)
    if arguments.run:
        raise UsageError("--run is for the ticks of a review page: leave it out, or give the file that the page saved.")
    policy = resolved_policy(arguments)
    from pipeline.scrub.recall import measure

    with watched("recall", "texts", rated=True) as line:
        found = measure(arguments.gold, policy, progress=line)
    rows = [(row.label, row.spans, row.spans_found, row.tokens, row.tokens_found) for row in found.labels]
    text = "\n".join(
        (
            columns(rows, ("label", "spans", "found", "tokens", "found")),
            "",
            f"tokens: recall {_share(found.token_recall)}, precision {_share(found.token_precision)}",
            f"spans:  recall {_share(found.span_recall)}, precision {_share(found.span_precision)}",
        )
    )
    answer(arguments, found.to_json(), text)
    return 0


def _reviewed(arguments: argparse.Namespace) -> int:
    from pipeline.scrub.review import keep, measure

    found = keep(arguments.gold, runs.find(arguments.home, arguments.run)) if arguments.run else measure(arguments.gold)
    rows = [
        ("recall", _share(found.recall), _share(found.recall_low)),
        ("precision", _share(found.precision), _share(found.precision_low)),
    ]
    text = f"{found.records} records read: {found.right} values right, {found.wrong} wrong, {found.missed} missed"
    answer(arguments, found.model_dump(mode="json"), f"{text}\n{columns(rows, ('', 'value', 'at least'))}")
    return 0


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
