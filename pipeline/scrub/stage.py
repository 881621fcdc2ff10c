"""Scrub a corpus: find personal data in every part of every record and put the policy's operator in its place.

    scrubbed = scrub(corpus, policy, run / "scrubbed", probes=run / "probes.jsonl")
    export(scrubbed, corpus.shape, Path("out.jsonl"), Path("spans.jsonl"))

Records are cut into shards. A shard is a file and its results are files, worked on by as many processes as there are cores;
shards that an earlier try finished are not done again, and the result does not depend on who works on them, or how many.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.corpus import Corpus, Shape, load_records, to_line
from pipeline.errors import IntegrityError, StageError
from pipeline.folders import Progress, Value, check_parent, digest_file, private_folder, silent, stage, write_lines
from pipeline.mapping import MOST_WORKERS, Map, cores, here, processes
from pipeline.policy import Policy, Scrub
from pipeline.runs import open_home
from pipeline.scrub import _shards
from pipeline.scrub.detect import second
from pipeline.scrub.keys import fingerprint, key_file, read_key
from pipeline.scrub.labels import Labels
from pipeline.scrub.operators import KEYED, operator
from pipeline.scrub.quasi import Quasi
from pipeline.scrub.quasi import count as count_quasi
from pipeline.scrub.recall import Recall
from pipeline.scrub.sampled import Sampled

_Whole = tuple[list[_shards.Counts], _shards.Described, Quasi]
_Report = Callable[[_shards.Counts], None]

SMALL = 512  # records up to which starting processes takes longer than it saves


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
    mapper: Map | None = None,
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
        mapper: who works on the shards instead of this machine's processes (see `pipeline.mapping`), unless they are few.

    Raises:
        PolicyError: the policy names an entity that no recogniser supports, a model that is not installed, or an operator that
            needs a key where none is given.
        InputError: the probe file is not gold.
        StageError: a shard could not be scrubbed, processes died over it, or its results are not as its worker left them.
            Finished shards are kept for the next try.
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
        "rules": _shards.rules(),
        "key": fingerprint(secret) if secret else None,  # the operator's, or that of a column that is hashed
        "recognizers": digest_file(Path(policy.scrub.recognizers)) if policy.scrub.recognizers else None,
        "rescanned_by": other.name if other else None,
    }

    told = Counter[str]()

    def report(count: _shards.Counts) -> None:
        told.update(records=count.records, found=count.found)
        progress(told["records"], corpus.records, found=told["found"])

    def work(scratch: Path) -> Scrubbed:
        started = time.monotonic()
        most = policy.scrub.rescan_records
        share = 1.0 if most is None else min(1.0, most / max(corpus.records, 1))
        job = _shards.Job(
            source=source.absolute(),
            scrub=_anywhere(policy.scrub),
            key=key and key.absolute(),
            probes=probes and probes.absolute(),
            share=share,
            rules=_shards.rules(),
        )
        counts, (detector, recall, sampled), quasi = _all(job, scratch, report, _mapper(mapper, workers, corpus.records))
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


def _all(job: _shards.Job, scratch: Path, report: _Report, mapper: Map) -> _Whole:
    """Scrub every shard and join the results in `scratch`."""
    folder = private_folder(scratch.absolute() / "shards")
    shards = _shards.split(load_records(job.source), folder)
    counts = {shard: count for shard in shards if (count := _shards.done(shard))}
    pieces = _shards.pieces(job, [shard for shard in shards if shard not in counts], folder)

    def done(index: int, result: _shards.Counts | _shards.Described) -> None:
        shard = pieces[index].shard
        if shard is not None and isinstance(result, _shards.Counts):
            counts[shard] = result
            report(result)

    for count in counts.values():  # of an earlier try
        report(count)
    described, *_ = mapper(_shards.work, pieces, done)
    for shard in shards:
        if shard not in counts or not _shards.whole(shard, counts[shard]):
            raise StageError(f"The results of shard {shard.stem} are not as their worker reported them: run again.")
    for name, index in (("records.jsonl", 0), ("spans.jsonl", 1)):
        write_lines(scratch / name, _lines(_shards.results(shard)[index] for shard in shards))
    quasi = count_quasi([_shards.quasi_file(shard) for shard in shards], scratch)
    shutil.rmtree(folder)
    return [counts[shard] for shard in shards], described, quasi


def _anywhere(section: Scrub) -> Scrub:
    """The policy's section as a process in another folder reads it."""
    return section.model_copy(update={"recognizers": str(Path(section.recognizers).absolute())} if section.recognizers else {})


def _mapper(given: Map | None, workers: int | None, records: int) -> Map:
    if workers is None and records <= SMALL:
        return here
    if given is not None:
        return given
    count = min(cores(), MOST_WORKERS) if workers is None else workers
    return processes(count) if count > 1 else here


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from file
