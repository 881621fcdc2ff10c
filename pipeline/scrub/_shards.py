"""One shard of a corpus: a file of records in, files of scrubbed records and of spans out, counts as a marker that it is done.

Nothing here returns or raises text: a worker process is told paths and digests and sends back counts, and any other error than
our own becomes a StageError that names its kind only. A worker may be on another machine that shares the run's folder: it
checks what it reads there by digest, and that it is the same program.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.corpus import COLUMN, Part, Record, load_records, save_records
from pipeline.errors import HushtuneError, StageError
from pipeline.folders import Value, digest, digest_file, write_json, write_text
from pipeline.policy import Scrub
from pipeline.scrub import quasi
from pipeline.scrub._threads import threaded
from pipeline.scrub.detect import MODEL, Detector, Span, encodable, load, second
from pipeline.scrub.keys import read_key
from pipeline.scrub.operators import operator, replace
from pipeline.scrub.recall import Recall, planted
from pipeline.scrub.sampled import Sampled, sample

RECORDS = 256  # in a shard: seconds of work, so that little is lost in a crash and progress moves
CHARACTERS = 1_000_000  # in a shard, roughly: bounds a worker's memory where records are long


_HASHED = f"{COLUMN}hash:"


class Counts(Value):
    """What one shard held: records, records changed, values found by entity, digest of each result file.

    `residual` counts what another detector still finds, by entity, in the `rescanned` records that it read again; None where
    there is no other.
    """

    records: int
    changed: int
    entities: dict[str, int]
    digests: dict[str, str]
    rescanned: int = 0
    residual: dict[str, int] | None = None

    @property
    def found(self) -> int:
        """Values found, of any entity."""
        return sum(self.entities.values())


class Job(Value):
    """What every worker is told of one scrubbing, by a file beside the shards.

    Its records, the policy's section, the files of key and probes, the share of records that are re-scanned, and `rules()`.
    """

    source: Path
    scrub: Scrub
    key: Path | None
    probes: Path | None
    share: float
    rules: str


class Piece(NamedTuple):
    """One piece of the work: the job's file, and a shard; or, without one, the probes. Each file with its SHA-256."""

    job: Path
    job_digest: str
    shard: Path | None = None
    shard_digest: str = ""


Described = tuple[str, tuple[Recall, ...], Sampled | None]
"""Name of the detector, its recall on the probes, and what a sample of the records tells."""


def pieces(job: Job, shards: Iterable[Path], folder: Path) -> list[Piece]:
    """Write the job's file; returns the probes as a piece, and one for each shard."""
    path = folder / "job.json"
    write_json(path, job.model_dump(mode="json"))
    sealed = digest_file(path)
    return [Piece(path, sealed), *(Piece(path, sealed, shard, digest_file(shard)) for shard in shards)]


def work(piece: Piece) -> Counts | Described:
    """Do one piece, wherever this process runs; a shard that is done already is not done again.

    Raises:
        PolicyError, InputError: see `run` and `probe`.
        StageError: the files are not there or differ, this is another version of the program, or anything else went wrong.
    """
    wrong = next((path for path, sealed in ((piece.job, piece.job_digest), (piece.shard, piece.shard_digest))
                  if path and not _is(path, sealed)), None)  # fmt: skip
    if wrong is not None:
        raise StageError(
            f"A worker does not see {wrong.name} of {wrong.parent.parent} as it was written: keep the home folder on storage "
            "that all workers share."
        )
    job = Job.model_validate_json(piece.job.read_bytes())
    if job.rules != rules():
        raise StageError("A worker runs another version of hushtune, Presidio or spaCy: install the same on all machines.")
    if piece.shard is None:
        return probe(job.probes, job.scrub, job.source)
    return done(piece.shard) or run(piece.shard, job.scrub, job.key, job.share)


def _is(path: Path, sealed: str) -> bool:
    try:
        return digest_file(path) == sealed
    except OSError:
        return False


@lru_cache(maxsize=1)
def rules() -> str:
    """Digest of everything but the policy that decides what is found: this package's code, and what it stands on."""
    code = {path.name: digest_file(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    return digest(code | {name: metadata.version(name) for name in ("presidio-analyzer", "spacy", MODEL)})


def split(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write the records into shard files `00000.jsonl`, … in order; returns their paths."""
    paths = []
    for shard in _shards(records):
        paths.append(folder / f"{len(paths):05d}.jsonl")
        save_records(paths[-1], shard)
    return paths


def _shards(records: Iterable[Record]) -> Iterator[list[Record]]:
    shard: list[Record] = []
    characters = 0
    for record in records:
        shard.append(record)
        characters += sum(len(part.text) for part in record.parts)
        if len(shard) == RECORDS or characters >= CHARACTERS:
            yield shard
            shard, characters = [], 0
    if shard:
        yield shard


def results(shard: Path) -> tuple[Path, Path]:
    """Where a shard's scrubbed records and its spans go."""
    return shard.with_suffix(".records.jsonl"), shard.with_suffix(".spans.jsonl")


def quasi_file(shard: Path) -> Path:
    """Where the digests of a shard's quasi-identifiers go."""
    return shard.with_suffix(".quasi.jsonl")


def done(shard: Path) -> Counts | None:
    """A shard's counts, if its results are there and whole."""
    marker = shard.with_suffix(".json")
    if not marker.is_file():
        return None
    counts = Counts.model_validate_json(marker.read_text())
    return counts if whole(shard, counts) else None


def whole(shard: Path, counts: Counts) -> bool:
    """Whether the files of a shard's results are those that its counts speak of."""
    return all(_is(path, counts.digests.get(path.name, "")) for path in (*results(shard), quasi_file(shard)))


def run(shard: Path, scrub: Scrub, key: Path | None = None, share: float = 1.0) -> Counts:
    """Scrub one shard; `key` is the file of the secret key, for operators that need one, `share` of its records are re-scanned.

    Raises:
        PolicyError: the policy names an entity that no recogniser supports.
        StageError: anything else went wrong; the message names the kind of error and carries no text.
    """
    try:
        return _run(shard, scrub, load(scrub), key, share)
    except HushtuneError:
        raise
    except Exception as error:
        kind = type(error).__name__
    # Raised here, not in the handler: a chained error would keep text in its message or its frames.
    raise StageError(f"Records of shard {shard.stem} could not be scrubbed ({kind}): run again, finished shards are kept.")


def probe(gold: Path | None, scrub: Scrub, source: Path) -> Described:
    """The name of the detector that scrubs, its recall on the probes, and what a sample of the records tells.

    Errors as in `run`, and InputError for bad probes.
    """
    try:
        detector = load(scrub)
        sampled = sample(source, scrub, detector, second(scrub)) if gold and scrub.sample else None
        return detector.name, planted(gold, detector) if gold else (), sampled
    except HushtuneError:
        raise
    except Exception as error:
        kind = type(error).__name__
    raise StageError(f"The probes could not be measured ({kind}): write them again.")


def _run(shard: Path, scrub: Scrub, detector: Detector, key: Path | None = None, share: float = 1.0) -> Counts:
    records = list(load_records(shard))
    texts = [encodable(part.text) for record in records for part in record.parts]
    units = [record.unit for record in records for _ in record.parts]
    found = iter(zip(texts, threaded(texts, units, detector.find(texts), scrub), strict=True))
    operate = operator(scrub.operator, key=read_key(key) if key else None, consistency=scrub.consistency, locale=scrub.locale)
    hashes = any(part.role.startswith(_HASHED) for record in records for part in record.parts)
    keyed = operator("hash", key=read_key(key) if key else None, consistency="corpus") if hashes else operate
    scrubbed, lines, entities, changed, replaced, again, left = [], [], Counter[str](), 0, [], 0, []
    for record in records:
        parts = list(islice(found, len(record.parts)))
        parts = [_ruled(part.role, text, spans) for part, (text, spans) in zip(record.parts, parts, strict=True)]
        new = [
            replace(text, spans, keyed if part.role.startswith(_HASHED) else operate, record.unit)
            for part, (text, spans) in zip(record.parts, parts, strict=True)
        ]
        if _drawn(record, share):
            replaced += new
            again += 1
        scrubbed.append(_with_texts(record, [text for text, _ in new]))
        left.append(quasi.to_line(record.unit, quasi.features(scrubbed[-1], [places for _, places in new], scrub.entities)))
        changed += any(spans for _, spans in parts)
        entities.update(span.entity for _, spans in parts for span in spans)
        lines.append(_line(record.id, [spans for _, spans in parts]))
    records_path, spans_path = results(shard)
    save_records(records_path, scrubbed)
    write_text(spans_path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_text(quasi_file(shard), "".join(left))
    digests = {path.name: digest_file(path) for path in (records_path, spans_path, quasi_file(shard))}
    counts = Counts(
        records=len(records), changed=changed, entities=dict(sorted(entities.items())), digests=digests,
        rescanned=again if second(scrub) else 0, residual=_residual(replaced, scrub),
    )  # fmt: skip
    write_json(shard.with_suffix(".json"), counts.model_dump(mode="json"))
    return counts


def _drawn(record: Record, share: float) -> bool:
    """Whether a record is re-scanned: by its id, so that a try that is taken up again draws the same."""
    return int.from_bytes(hashlib.blake2b(record.id.encode(), digest_size=8).digest(), "big") < share * 2**64


def _ruled(role: str, text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    """What is replaced of a part: of a further column what its rule says, otherwise what was found."""
    if role.startswith(_HASHED):
        return text, [Span(0, len(text), "COLUMN", 1.0)] if text else []
    return text, [] if role.startswith(f"{COLUMN}keep:") else spans


def _residual(replaced: list[tuple[str, list[tuple[int, int]]]], scrub: Scrub) -> dict[str, int] | None:
    """What another detector finds in scrubbed texts outside of what stands there as a replacement."""
    other = second(scrub)
    if other is None:
        return None
    left = Counter[str]()
    for (_, places), spans in zip(replaced, other.find([text for text, _ in replaced]), strict=True):
        left.update(span.entity for span in spans if not any(span.start < end and start < span.end for start, end in places))
    return dict(sorted(left.items()))


def _with_texts(record: Record, texts: list[str]) -> Record:
    parts = tuple(Part(part.role, text) for part, text in zip(record.parts, texts, strict=True))
    return Record(record.id, record.unit, parts)


def _line(record_id: str, parts: list[list[Span]]) -> dict[str, Any]:
    """A record's spans; `part` is the index of the part that the offsets count in, where a record has several."""
    spans = [
        {"start": span.start, "end": span.end, "entity": span.entity, "score": span.score}
        | ({"part": index} if len(parts) > 1 else {})
        for index, found in enumerate(parts)
        for span in found
    ]
    return {"id": record_id, "spans": spans}
