"""Rows out of JSON Lines, CSV, Parquet and plain text, streamed in bounded memory.

A row is a mapping of column names to raw values; nothing here looks at what the columns mean.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any, NamedTuple, cast

import pyarrow.parquet

from pipeline._source import LONGEST, Malformed, Source

_BROKEN = object()
_QUOTE = "quote cells that hold separators, quotes or line ends."


class Row(NamedTuple):
    """One record as it stands in its file; `number` is the line (Parquet: the row) where it starts, from 1."""

    number: int
    values: Mapping[str, Any]


def rows(source: Source) -> Iterator[Row]:
    """Yield the rows of a source in order; what is told to `source.refuse` is left out.

    Raises:
        InputError: the file is damaged in such a way that its records cannot be told apart.
    """
    yield from {"json": _json, "csv": _csv, "text": _text, "parquet": _parquet}[source.format](source)


def _json(source: Source) -> Iterator[Row]:
    for number, line in source.lines(each=True):
        if not line.strip():
            continue
        content: Any = _BROKEN
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(line)
        if isinstance(content, dict):
            yield Row(number, content)
        elif content is _BROKEN:
            source.refuse(Malformed(number, "not JSON", "is not valid JSON: write one JSON object on each line."))
        else:
            what = "is not a JSON object: write one object with named columns on each line."
            source.refuse(Malformed(number, "not an object", what))


def _csv(source: Source) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    lines = (line for _, line in source.lines())
    first = next(lines, "")
    reader = csv.reader(_again(first, lines), delimiter=max(",;\t|", key=first.count), strict=True)
    header: list[str] = []
    while True:
        start, cells = reader.line_num + 1, cast(Any, _BROKEN)
        with contextlib.suppress(csv.Error):
            cells = next(reader, None)
        if cells is _BROKEN:
            raise source.error(start, f"starts a record that is not well-formed CSV: {_QUOTE}")
        if cells is None:
            return
        if not header:
            header = _header(source, start, cells)
        elif cells and len(cells) != len(header):
            what = f"has {len(cells)} cells where the header has {len(header)}: {_QUOTE}"
            source.refuse(Malformed(start, "wrong number of cells", what))
        elif cells:
            yield Row(start, dict(zip(header, cells, strict=True)))


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(source: Source, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names):
        raise source.error(number, "names two columns alike: the first line must hold the names of the columns.")
    return names


def _text(source: Source) -> Iterator[Row]:
    """Paragraphs set apart by blank lines; lines, where no blank line stands between text."""
    paragraphs = _has_gap(source)
    start, gathered, size = 0, [], 0
    for number, line in source.lines():
        if line.strip():
            start, size = start or number, size + len(line)
            gathered.append(line.rstrip())
            if size > LONGEST:
                raise source.error(start, f"starts a paragraph over {LONGEST >> 20} MiB: set records apart by blank lines.")
        if gathered and not (paragraphs and line.strip()):
            yield Row(start, {"text": "\n".join(gathered)})
            start, gathered, size = 0, [], 0
    if gathered:
        yield Row(start, {"text": "\n".join(gathered)})


def _has_gap(source: Source) -> bool:
    seen = gap = False
    for _, line in source.lines():
        filled = bool(line.strip())
        if filled and gap:
            return True
        seen, gap = seen or filled, seen and not filled
    return False


def _parquet(source: Source) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        file = source.bytes()
        if isinstance(file, gzip.GzipFile):  # Parquet is read from its end: unpack into a file without a name
            unpacked = stack.enter_context(tempfile.TemporaryFile(dir=source.scratch))
            source.guarded(functools.partial(shutil.copyfileobj, file, unpacked))
            file = unpacked
        number, batches = 0, _batches(file, source.columns)
        while (batch := source.guarded(lambda: next(batches, None))) is not None:
            for values in batch:
                number += 1
                yield Row(number, values)


def _batches(file: IO[bytes], columns: Collection[str]) -> Iterator[list[dict[str, Any]]]:
    """A few rows at a time; columns that are not wanted are there by name only."""
    table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
    names = table.schema_arrow.names
    wanted = [name for name in names if name in columns] or names[:1]
    for batch in table.iter_batches(batch_size=128, columns=wanted):
        yield [dict.fromkeys(names) | row for row in batch.to_pylist()]
