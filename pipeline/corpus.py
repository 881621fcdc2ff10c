"""Read a data set into the one form that every later stage knows: records of parts, each of one privacy unit.

    corpus = read(Path("notes.csv.gz"), policy, run / "corpus")
    for record in load_records(corpus.folder / "records.jsonl"): ...

The shape (text, prompt and completion, or chat) follows from the columns of the first record. A person's records share
a unit; where the data has no unit column every record is its own unit. The fingerprint depends on the records alone:
not on their order, the file format, or the names of the columns.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline._readers import rows
from pipeline._shapes import COLUMN, Part, Record, Shape, Shaper
from pipeline._source import Malformed, Source, check
from pipeline._tally import Tally
from pipeline.errors import InputError, IntegrityError
from pipeline.folders import Progress, Value, digest_file, silent, stage, write_lines
from pipeline.policy import Policy

__all__ = ["COLUMN", "Corpus", "Part", "Record", "Shape", "check", "load_records", "read", "save_records", "to_line"]

_COLUMNS = ("text_column", "prompt_column", "completion_column", "messages_column", "id_column", "unit_column")
_EVERY = 500  # records between two calls of progress


class Corpus(Value):
    """What was read: counts and a fingerprint; the records themselves are in `folder`/records.jsonl."""

    folder: Path
    source: str
    shape: Shape
    records: int
    units: int
    characters: int
    duplicates: int
    largest_unit: int
    has_units: bool
    refused: dict[str, int]
    fingerprint: str


def read(data: Path, policy: Policy, folder: Path, *, progress: Progress = silent, with_columns: bool = False) -> Corpus:
    """Read a JSON Lines, CSV, Parquet or plain-text file (each also gzipped) once, in bounded memory.

    Args:
        data: the file; its ending names the format. Plain text is split at blank lines, or, where it has none, at line
            ends.
        policy: `policy.data` names the columns, the pattern that finds the unit, the limit, and what becomes of malformed
            lines: all of them refused at once, or left out and counted.
        folder: the stage's folder; records.jsonl is written there (mode 0600).
        progress: told bytes read of bytes in the file, and the figure `records`.
        with_columns: keep the further columns of `policy.data.columns`, to write them out again; training never does.

    Returns:
        Counts: records kept, units, characters of text, records that repeat an earlier one's text, records of the
        largest unit, and records refused by reason. `fingerprint` is a SHA-256 (hex).

    Raises:
        InputError: the file is missing, empty, binary or damaged, a line or column is not what it must be, two records
            have the same id, or nothing is left to train on. Then nothing stays behind in `folder`.
    """
    data, folder = Path(data), Path(folder)
    check(data)
    chosen = policy.data.model_dump(mode="json", include={*_COLUMNS, "unit_pattern", "limit", "malformed"})
    inputs = {"stage": "corpus/1", "name": data.name, "data": digest_file(data), "columns": chosen}
    inputs["unit"] = policy.privacy.unit
    if with_columns:
        inputs["further"] = policy.data.columns
    try:
        return stage(folder, Corpus, inputs, lambda scratch: _corpus(data, policy, folder, scratch, progress, with_columns))
    except BaseException:
        # Half a copy of private text is worth nothing: unlike other stages, this one never goes on from it.
        shutil.rmtree(folder.with_name(folder.name + ".partial"), ignore_errors=True)
        raise


def load_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file that `save_records` wrote.

    Raises:
        IntegrityError: a line is not a record; the message names it.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            record = None
            with contextlib.suppress(ValueError, KeyError, TypeError):
                content = json.loads(line)
                parts = tuple(Part(part["role"], part["text"]) for part in content["parts"])
                record = Record(content["id"], content["unit"], parts)
            if record is None:
                raise IntegrityError(
                    f"{path}, line {number}, is not a record as it was written: delete the folder and run again."
                )
            yield record


def save_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as lines `{"id","unit","parts":[{"role","text"}]}`, atomically, mode 0600; returns how many."""
    return write_lines(path, map(_line, records))


def _line(record: Record) -> str:
    parts = [{"role": part.role, "text": part.text} for part in record.parts]
    return json.dumps({"id": record.id, "unit": record.unit, "parts": parts}, ensure_ascii=False) + "\n"


def to_line(record: Record, shape: Shape) -> dict[str, Any]:
    """A record in the shape it came in: id, unit, and text, prompt and completion, or messages.

    >>> to_line(Record("r1", "ann", (Part("text", "Hello."),)), "text")
    {'id': 'r1', 'unit': 'ann', 'text': 'Hello.'}
    """
    own = [part for part in record.parts if not part.role.startswith(COLUMN)]
    line: dict[str, Any] = {part.role.split(":", 2)[2]: part.text for part in record.parts if part.role.startswith(COLUMN)}
    line |= {"id": record.id, "unit": record.unit}
    if shape == "chat":
        return line | {"messages": [{"role": part.role, "content": part.text} for part in own]}
    return line | {part.role: part.text for part in own}


def _corpus(path: Path, policy: Policy, folder: Path, scratch: Path, progress: Progress, with_columns: bool) -> Corpus:
    data = policy.data
    columns = {getattr(data, key) for key in _COLUMNS} | (set(data.columns) if with_columns else set())
    with Source(path, scratch=scratch, columns=columns) as source, Tally(scratch) as tally:
        shaper = Shaper(source, data, with_columns=with_columns)
        records = _records(source, shaper, tally, progress)
        save_records(scratch / "records.jsonl", _first(records, data.limit))
        refusal = source.refusal() if data.malformed == "refuse" else None
        if refusal is not None:
            raise refusal
        if not tally.records:
            reasons = "".join(f", {count} refused ({reason})" for reason, count in sorted(source.refused.items()))
            raise InputError(f"{path} holds no record with text{reasons}: give a file that holds records.")
        if policy.privacy.unit == "person" and not shaper.has_units:
            raise InputError(
                f"{path} does not say whose each record is, and policy {policy.name} protects persons: name the column that "
                "does with --unit-column, or use a policy with privacy.unit: record."
            )
        progress(source.size, source.size, records=tally.records)
        units, largest = tally.units()
        return Corpus(
            folder=folder, source=path.name, shape=shaper.shape or "text", records=tally.records, units=units,
            characters=tally.characters, duplicates=tally.duplicates, largest_unit=largest,
            has_units=bool(shaper.has_units), refused=dict(sorted(source.refused.items())), fingerprint=tally.fingerprint(),
        )  # fmt: skip


def _records(source: Source, shaper: Shaper, tally: Tally, progress: Progress) -> Iterator[Record]:
    for row in rows(source):
        try:
            shaped = shaper.shaped(row)
        except Malformed as line:
            source.refuse(line)
            continue
        if isinstance(shaped, str):
            source.refused[shaped] += 1
            continue
        earlier = tally.add(shaped, row.number, has_units=bool(shaper.has_units))
        if earlier is not None:
            what = f"repeats the id of {source.noun} {earlier}: give every record its own id, or set data.id_column."
            raise source.error(row.number, what)
        if tally.records % _EVERY == 0:
            progress(source.done, source.size, records=tally.records)
        yield shaped.record


def _first(records: Iterator[Record], limit: int | None) -> Iterator[Record]:
    for count, record in enumerate(records, 1):
        yield record
        if count == limit:  # stop before the next one is read and counted
            return
