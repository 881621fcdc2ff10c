"""`hushtune report`: write a run's report again, as PDF too, compare two of them, print the schema of report.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import policy as policies
from pipeline import runs
from pipeline.commands.common import answer, columns, quiet
from pipeline.commands.evidence import T, stored
from pipeline.errors import StageError, UsageError
from pipeline.folders import private_folder


def report(arguments: argparse.Namespace) -> int:
    """Write a run's report again from its stored stages, compare two, or print the schema."""
    quiet()
    from pipeline import report as reports

    if arguments.schema:
        print(reports.schema_text(), end="")
        return 0
    if arguments.html and not arguments.compare:
        raise UsageError("--html is for --compare: the report of a run is a page already.")
    if arguments.compare:
        return _compare(arguments)
    if arguments.run is None:
        raise UsageError("Say which run: hushtune report RUN, or --compare A B, or --schema.")
    path = _write(runs.find(arguments.home, arguments.run))
    paths = {"report": str(path)}
    if arguments.pdf:
        paths["pdf"] = str(reports.write_pdf(path.parent))
    answer(arguments, {"run": path.parent.parent.name, **paths}, "\n".join(paths.values()))
    return 0


def _write(folder: Path) -> Path:
    from pipeline import facts, gates
    from pipeline import report as reports
    from pipeline.audit import Evidence
    from pipeline.canaries import Planted
    from pipeline.corpus import Corpus
    from pipeline.ledger import Standing
    from pipeline.scrub import Scrubbed
    from pipeline.train.loop import Trained

    rules = policies.load(folder / "policy.json")
    corpus, trained = stored(folder, "corpus", Corpus), stored(folder, "trained", Trained)
    verdict = _json(folder / "verdict.json", gates.Verdict)
    content = reports.build(
        rules,
        corpus,
        stored(folder, "scrubbed", Scrubbed),
        stored(folder, "planted", Planted),
        trained,
        stored(folder, "evidence", Evidence),
        verdict,
        _json(folder / "standing.json", Standing),
        facts.for_report(folder) | reports.keep(folder, folder.parent.parent, rules, corpus, trained, verdict),
    )
    return reports.write(content, private_folder(folder / "report"))


def _compare(arguments: argparse.Namespace) -> int:
    from pipeline.report import compare

    folders = [_report_folder(ref, arguments.home) for ref in arguments.compare]
    before, after = map(compare.read, folders)
    content = compare.comparison(before, after, (arguments.compare[0], arguments.compare[1]))
    text = f"{columns(compare.table(content), ('', 'figure', *arguments.compare))}\n{content['finding']}"
    if arguments.html:
        text += f"\n{compare.write_comparison(content, arguments.html)}"
    answer(arguments, content, text)
    return 0


def _report_folder(ref: str, home: Path) -> Path:
    """The folder with the report.json of a release, or else of a run."""
    from pipeline.commands.govern import release_folder

    folder = release_folder(ref, home)
    return folder if folder is not None else runs.find(home, ref) / "report"


def _json(path: Path, kind: type[T]) -> T:
    if not path.is_file():
        raise StageError(f"Run {path.parent.name} has no {path.name}: it stopped before; run it again from the start.")
    return kind.model_validate_json(path.read_text(encoding="utf-8"))
