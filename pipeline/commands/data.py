"""`hushtune scrub` and `hushtune recall`."""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import runs
from pipeline.commands.common import answer, columns, data_file, quiet, resolved_policy, watched
from pipeline.errors import UsageError
from pipeline.folders import check_parent, private_folder


def scrub(arguments: argparse.Namespace) -> int:
    """Write a data file's records again, in the shape they came in, with personal data replaced."""
    quiet()
    policy, data = resolved_policy(arguments), data_file(arguments)
    from pipeline import corpus as corpora
    from pipeline import scrub as scrubbing
    from pipeline.scrub.keys import read_key
    from pipeline.scrub.labels import Labels
    from pipeline.scrub.review import write_page

    for path in (arguments.output, arguments.spans):
        if path is not None:
            check_parent(path)
    with _workplace(arguments.output) as folder:
        with watched("read") as line:
            corpus = corpora.read(data, policy, folder / "corpus", progress=line, with_columns=True)
        key = scrubbing.key_for(policy, arguments.home)
        labels = Labels(policy, read_key(key) if key else None)
        with watched("scrub", "records", rated=True) as line:
            scrubbed = scrubbing.scrub(corpus, policy, folder / "scrubbed", probes=None, progress=line, key=key)
        scrubbing.export(scrubbed, corpus.shape, arguments.output, arguments.spans, labels=labels)
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
        "labels_replaced": labels.count,
    }
    text = f"{arguments.output}: {replaced:,} values replaced in {scrubbed.changed:,} of {scrubbed.records:,} records."
    text += f"\n{labels.count:,} ids and units were names, addresses or numbers of people." if labels.count else ""
    answer(arguments, content, f"{text}\n{columns(sorted(scrubbed.entities.items()))}" if scrubbed.entities else text)
    return 0


@contextmanager
def _workplace(output: Path) -> Iterator[Path]:
    """A private folder beside the output, which a killed or failed try leaves if it finished a part, to be gone on from.

    Raises:
        UsageError: another process writes the same output.
    """
    folder = private_folder(output.absolute().with_name(f".{output.name}.hushtune"))
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another process is writing {output}: wait until it ends, or write elsewhere.") from None
        except OSError:  # a disk that knows no locks: nobody else can be told
            pass
        try:
            yield folder
        except BaseException:
            if any(folder.glob("scrubbed.partial/shards/[0-9]*.json")):
                print(f"What is finished is kept in {folder}, with the text as it is: run again to go on.", file=sys.stderr)
            else:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


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
