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
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline._readers import rows
from pipeline._shapes import COLUMN, Part, Record, Shape, Shaper
from pipeline._source import Malformed, Source, check
from pipeline._tally import Tally
from pipeline.errors import InputError, IntegrityError
from pipeline.folders import Progress, Value, silent, stage, write_lines
from pipeline.intake import Intake
from pipeline.intake import of as intake_of
from pipeline.policy import Policy

__all__ = ["COLUMN", "Corpus", "Part", "Record", "Shape", "check", "load_records", "read", "save_records", "to_line"]

_COLUMNS = ("text_column", "prompt_column", "completion_column", "messages_column", "id_column", "unit_column")
_EVERY = 500  # records between two calls of progress
_LINES = 40  # bits of a line's number, beside which the number of its file stands
_OWN_ID = "give every record its own id, or set data.id_column."


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


def read(
    data: Path | Intake, policy: Policy, folder: Path, *, progress: Progress = silent, with_columns: bool = False
) -> Corpus:
    """Read JSON Lines, CSV, Parquet or plain text (each also gzipped) once, in bounded memory: a file, or those of a folder.

    The files of a folder may be of several formats as long as they are of one shape. Ids are unique across all of them, and
    a person's records in several files are one unit.

    Args:
        data: the file, or the folder; a file's ending names its format. Plain text is split at blank lines, or, where it has
            none, at line ends.
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
    intake, folder = data if isinstance(data, Intake) else intake_of(Path(data)), Path(folder)
    if not intake.files:
        raise InputError(f"The folder {intake.path} holds no data file: put files there, or give another folder.")
    chosen = policy.data.model_dump(mode="json", include={*_COLUMNS, "unit_pattern", "limit", "malformed"})
    inputs = {"stage": "corpus/1", "name": intake.path.name, "data": intake.digest, "columns": chosen}
    inputs["unit"] = policy.privacy.unit
    if with_columns:
        inputs["further"] = policy.data.columns
    try:
        return stage(folder, Corpus, inputs, lambda scratch: _corpus(intake, policy, folder, scratch, progress, with_columns))
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


def _corpus(intake: Intake, policy: Policy, folder: Path, scratch: Path, progress: Progress, with_columns: bool) -> Corpus:
    data = policy.data
    with Tally(scratch) as tally:
        reader = _Reader(intake, policy, scratch, tally, progress, with_columns)
        with contextlib.closing(reader.records()) as records:  # which tells what it refused when it ends, or is ended
            save_records(scratch / "records.jsonl", _first(records, data.limit))
        if reader.refusal is not None:
            raise reader.refusal
        refused, has_units = dict(sorted(reader.refused.items())), reader.shaper is not None and reader.shaper.has_units
        if not tally.records:
            reasons = "".join(f", {count} refused ({reason})" for reason, count in refused.items())
            raise InputError(f"{intake.path} holds no record with text{reasons}: give a file that holds records.")
        if policy.privacy.unit == "person" and not has_units:
            raise InputError(
                f"{intake.path} does not say whose each record is, and policy {policy.name} protects persons: name the column "
                "that does with --unit-column, or use a policy with privacy.unit: record."
            )
        progress(reader.size, reader.size, records=tally.records)
        units, largest = tally.units()
        shape = reader.shaper.shape if reader.shaper else None
        return Corpus(
            folder=folder, source=intake.path.name, shape=shape or "text", records=tally.records, units=units,
            characters=tally.characters, duplicates=tally.duplicates, largest_unit=largest,
            has_units=bool(has_units), refused=refused, fingerprint=tally.fingerprint(),
        )  # fmt: skip


class _Reader:
    """The records of all files in order; what was refused, and the first error that refuses whole lines, of any file."""

    def __init__(
        self, intake: Intake, policy: Policy, scratch: Path, tally: Tally, progress: Progress, with_columns: bool
    ) -> None:
        self.paths = intake.paths
        self.size = sum(path.stat().st_size for path in self.paths)
        self.shaper: Shaper | None = None
        self.refused: Counter[str] = Counter()
        self.refusal: InputError | None = None
        self._policy, self._scratch, self._tally = policy, scratch, tally
        self._progress, self._with_columns = progress, with_columns
        self._nouns: list[str] = []

    def records(self) -> Generator[Record, None, None]:
        data, before = self._policy.data, 0
        columns = {getattr(data, key) for key in _COLUMNS} | (set(data.columns) if self._with_columns else set())
        for path in self.paths:
            with Source(path, scratch=self._scratch, columns=columns) as source:
                self._nouns.append(source.noun)
                self.shaper = Shaper(source, data, with_columns=self._with_columns, after=self.shaper)
                try:
                    yield from self._of(source, self.shaper, before)
                finally:  # also where a limit ends the reading
                    self.refused += source.refused
                    if data.malformed == "refuse":
                        self.refusal = self.refusal or source.refusal()
                before += source.size

    def _of(self, source: Source, shaper: Shaper, before: int) -> Iterator[Record]:
        tally, index = self._tally, len(self._nouns) - 1
        for row in rows(source):
            try:
                shaped = shaper.shaped(row)
            except Malformed as line:
                source.refuse(line)
                continue
            if isinstance(shaped, str):
                source.refused[shaped] += 1
                continue
            earlier = tally.add(shaped, index << _LINES | row.number, has_units=bool(shaper.has_units))
            if earlier is not None:
                raise source.error(row.number, f"repeats the id of {self._place(earlier, index)}: {_OWN_ID}")
            if tally.records % _EVERY == 0:
                self._progress(before + source.done, self.size, records=tally.records)
            yield shaped.record

    def _place(self, place: int, index: int) -> str:
        at, number = place >> _LINES, place & (1 << _LINES) - 1
        return f"{self._nouns[at]} {number}" + (f" of {self.paths[at].name}" if at != index else "")


def _first(records: Iterator[Record], limit: int | None) -> Iterator[Record]:
    for count, record in enumerate(records, 1):
        yield record
        if count == limit:  # stop before the next one is read and counted
            return
