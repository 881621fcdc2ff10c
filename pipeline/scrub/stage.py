"""Scrub a corpus: find personal data in every part of every record and put the policy's operator in its place.

    scrubbed = scrub(corpus, policy, run / "scrubbed", probes=run / "probes.jsonl")
    export(scrubbed, corpus.shape, Path("out.jsonl"), Path("spans.jsonl"))

Records are cut into shards. A shard is a file and its results are files, worked on by as many processes as there are cores;
shards that an earlier try finished are not done again, and the result does not depend on the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.corpus import Corpus, Shape, load_records, to_line
from pipeline.errors import IntegrityError, StageError
from pipeline.folders import Progress, Value, check_parent, digest, digest_file, private_folder, silent, stage, write_lines
from pipeline.policy import Policy, Scrub
from pipeline.runs import open_home
from pipeline.scrub import _shards
from pipeline.scrub.detect import MODEL, second
from pipeline.scrub.keys import fingerprint, key_file, read_key
from pipeline.scrub.labels import Labels
from pipeline.scrub.operators import KEYED, operator
from pipeline.scrub.quasi import Quasi
from pipeline.scrub.quasi import count as count_quasi
from pipeline.scrub.recall import Recall
from pipeline.scrub.sampled import Sampled

_Described = tuple[str, tuple[Recall, ...], Sampled | None]
_Whole = tuple[list[_shards.Counts], _Described, Quasi]
_Finish = Callable[[Path, _shards.Counts], None]
_Report = Callable[[list[_shards.Counts]], None]

SMALL = 512  # records up to which starting processes takes longer than it saves
MOST_WORKERS = 4


class Scrubbed(Value):
    """What scrubbing did. `folder` holds records.jsonl (scrubbed) and spans.jsonl (offsets into the originals, no text).

    `changed` counts records in which something was found, `entities` the values found by type, `digest` is the SHA-256 of
    records.jsonl, `recall` was measured on the probes (by entity, and `ALL`; empty without probes), `seconds` is wall time.
    `rescanned_by` names the other detector that read `rescanned` of the scrubbed records, drawn by their ids, `residual` counts
    what it found there by entity; None where the policy wants none or none is installed. `sampled` was measured on records of
    the corpus itself, where there are probes. `quasi` says how many people what remains singles out.
    """

    folder: Path
    records: int
    changed: int
    entities: dict[str, int]
    detector: str
    operator: str
    digest: str
    recall: tuple[Recall, ...]
    seconds: float
    rescanned_by: str | None = None
    rescanned: int = 0
    residual: dict[str, int] | None = None
    sampled: Sampled | None = None
    quasi: Quasi | None = None


def scrub(
    corpus: Corpus,
    policy: Policy,
    folder: Path,
    *,
    probes: Path | None,
    progress: Progress = silent,
    workers: int | None = None,
    key: Path | None = None,
) -> Scrubbed:
    """Scrub a corpus once for its records, the policy's section `scrub`, the probes and the rules.

    Args:
        corpus: what was read; its records.jsonl is the input.
        policy: `policy.scrub` names detector, entities, minimum score, operator and allowed words.
        folder: the stage's folder.
        probes: gold file of planted values on which recall is measured, or None.
        progress: told records done of records, and the figure `found` (values so far).
        key: file of the secret key (`keys.key_file`), for the operators hash, encrypt and surrogate.
        workers: processes; 1 works in this one. By default one for each core, at most four, and none for few records.

    Raises:
        PolicyError: the policy names an entity that no recogniser supports, a model that is not installed, or an operator that
            needs a key where none is given.
        InputError: the probe file is not gold.
        StageError: a shard could not be scrubbed or a process died. Finished shards are kept for the next try.
    """
    source = corpus.folder / "records.jsonl"
    secret = read_key(key) if key is not None else None
    operator(policy.scrub.operator, key=secret, locale=policy.scrub.locale)  # refused before hours of work, not after
    other = second(policy.scrub)
    inputs = {
        "stage": "scrub/1",
        "records": digest_file(source),
        "scrub": policy.scrub.model_dump(mode="json"),
        "probes": digest_file(probes) if probes else None,
        "rules": _rules(),
        "key": fingerprint(secret) if secret else None,  # the operator's, or that of a column that is hashed
        "recognizers": digest_file(Path(policy.scrub.recognizers)) if policy.scrub.recognizers else None,
        "rescanned_by": other.name if other else None,
    }

    def report(counts: list[_shards.Counts]) -> None:
        progress(sum(count.records for count in counts), corpus.records, found=sum(count.found for count in counts))

    def work(scratch: Path) -> Scrubbed:
        started = time.monotonic()
        processes = _processes(workers, corpus.records)
        most = policy.scrub.rescan_records
        share = 1.0 if most is None else min(1.0, most / max(corpus.records, 1))
        run = _Run(source, policy.scrub, key, probes, share)
        counts, (detector, recall, sampled), quasi = _all(run, scratch, report, processes)
        return Scrubbed(
            folder=folder,
            records=sum(count.records for count in counts),
            changed=sum(count.changed for count in counts),
            entities=_sum(count.entities for count in counts),
            detector=detector,
            operator=policy.scrub.operator,
            digest=digest_file(scratch / "records.jsonl"),
            recall=recall,
            seconds=round(time.monotonic() - started, 3),
            rescanned_by=other.name if other else None,
            rescanned=sum(count.rescanned for count in counts),
            residual=_sum(count.residual or {} for count in counts) if other else None,
            sampled=sampled,
            quasi=quasi,
        )

    return stage(folder, Scrubbed, inputs, work)


def key_for(policy: Policy, home: Path) -> Path | None:
    """The home's key, made on first use, where the policy's operator or a column's rule needs one; None where nothing does."""
    keyed = policy.scrub.operator in KEYED or "hash" in policy.data.columns.values()
    return key_file(open_home(home)) if keyed else None


def export(scrubbed: Scrubbed, shape: Shape, output: Path, spans: Path | None = None, *, labels: Labels | None = None) -> int:
    """Write the scrubbed records in the shape they came in, and the spans, as JSON Lines; returns how many records.

    Both files are written whole or not at all, mode 0600.

    Args:
        scrubbed: a finished stage.
        shape: `corpus.shape`: text, completion or chat.
        output: where the records go; an existing file is replaced.
        spans: where `{"id","spans":[{"start","end","entity","score"}]}` goes, or None.
        labels: what ids and units become, in both files; None leaves them as they are.

    Raises:
        UsageError: a folder to write in does not exist.
        IntegrityError: the scrubbed records differ from their digest.
    """
    records = scrubbed.folder / "records.jsonl"
    if not records.is_file() or digest_file(records) != scrubbed.digest:
        raise IntegrityError(f"The scrubbed records in {scrubbed.folder} are missing or changed: delete it and run again.")
    for path in (output, spans):
        if path is not None:
            check_parent(path)
    named = labels.replaced if labels else iter
    count = write_lines(output, (_json(to_line(record, shape)) for record in named(load_records(records))))
    if spans is not None:
        lines = _lines([scrubbed.folder / "spans.jsonl"])
        own = zip(named(load_records(records)), lines, strict=True)
        write_lines(spans, (_json(json.loads(line) | {"id": record.id}) for record, line in own))
    return count


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sorted(sum(map(Counter, counts), Counter[str]()).items()))


class _Run(NamedTuple):
    """What every process is told: records, policy, key, probes, and the share of records that are re-scanned."""

    source: Path
    scrub: Scrub
    key: Path | None
    probes: Path | None
    share: float


def _all(run: _Run, scratch: Path, report: _Report, processes: int) -> _Whole:
    """Scrub every shard and join the results in `scratch`."""
    folder = private_folder(scratch / "shards")
    shards = _shards.split(load_records(run.source), folder)
    counts = {shard: count for shard in shards if (count := _shards.done(shard))}

    def finish(shard: Path, count: _shards.Counts) -> None:
        counts[shard] = count
        report(list(counts.values()))

    todo = [shard for shard in shards if shard not in counts]
    work = _in_processes if processes > 1 else _here
    described = work(todo, run, finish, min(processes, max(len(todo), 1)))
    for name, index in (("records.jsonl", 0), ("spans.jsonl", 1)):
        write_lines(scratch / name, _lines(_shards.results(shard)[index] for shard in shards))
    quasi = count_quasi([_shards.quasi_file(shard) for shard in shards], scratch)
    shutil.rmtree(folder)
    return [counts[shard] for shard in shards], described, quasi


def _here(todo: list[Path], run: _Run, finish: _Finish, processes: int) -> _Described:
    described = _shards.probe(run.probes, run.scrub, run.source)
    for shard in todo:
        finish(shard, _shards.run(shard, run.scrub, run.key, run.share))
    return described


def _in_processes(todo: list[Path], run: _Run, finish: _Finish, processes: int) -> _Described:
    """The same in processes with a detector each. They are spawned: a fork would copy locks that other threads hold."""
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        probe = pool.submit(_shards.probe, run.probes, run.scrub, run.source)
        futures = {pool.submit(_shards.run, shard, run.scrub, run.key, run.share): shard for shard in todo}
        waiting: list[Future[Any]] = [probe, *futures]
        for future in as_completed(waiting):
            result = future.result()  # a wrong policy or probe file stops the work at once
            if future is not probe:
                finish(futures[future], result)
        return probe.result()
    except BrokenProcessPool:
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    raise StageError(
        "A scrubbing process ended early, perhaps for lack of memory: run again (finished shards are kept), with fewer workers "
        "if it happens again."
    )


def _processes(workers: int | None, records: int) -> int:
    if workers is not None:
        return max(1, workers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if records <= SMALL else min(cores, MOST_WORKERS)


def _rules() -> str:
    """Digest of everything but the policy that decides what is found: this package's code, and what it stands on."""
    code = {path.name: digest_file(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    return digest(code | {name: metadata.version(name) for name in ("presidio-analyzer", "spacy", MODEL)})


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from file
