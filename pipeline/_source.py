"""A data file, opened and checked: its bytes (unpacked if gzipped), its lines, and how a message names a place in it.

No message quotes content, and no exception leaves with a parser's exception behind it (a JSON error, say, carries its
whole document): errors are raised outside the `except` that noticed them.

A line that cannot be a record is counted and remembered here, so that all of them can be refused, or left out, at once.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow

from pipeline.errors import InputError

LONGEST = 64 * 2**20
"""Bytes of one line, and of one plain-text paragraph, that are held in memory at most."""

_JSON, _CSV, _TEXT, _PARQUET = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv"), (".txt", ".text"), (".parquet", ".pq")
_FORMATS = {"json": _JSON, "csv": _CSV, "text": _TEXT, "parquet": _PARQUET}
_GZIP = b"\x1f\x8b"
_HEAD = 65536
_NAMED = 3  # lines that a message names
_NAME = re.compile(r"[^\W\d][\w.-]{0,31}( [\w.-]{1,16}){0,2}")


class Malformed(Exception):
    """A line that cannot be a record: its number, a reason to count it by, and what a message says of it."""

    def __init__(self, number: int, reason: str, what: str):
        super().__init__(number, reason, what)
        self.number, self.reason, self.what = number, reason, what


class Source:
    """An open data file, and what was refused of it: `refused` counts lines by reason."""

    def __init__(self, path: Path, *, scratch: Path, columns: Collection[str]):
        """Open a data file.

        Args:
            path: the file.
            scratch: a private folder; a gzipped Parquet file has to be unpacked to be read.
            columns: the columns that are wanted; a Parquet file gives None for all others, without decoding them.

        Raises:
            InputError: see `check`.
        """
        self.path, self.scratch, self.columns = path, scratch, columns
        self.format = check(path)
        self.noun = "row" if self.format == "parquet" else "line"
        self.size = path.stat().st_size
        self.refused: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._first: list[Malformed] = []
        self._raw: IO[bytes] = path.open("rb")

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def done(self) -> int:
        """Bytes of the file read so far."""
        return min(self._raw.tell(), self.size)

    def error(self, number: int, what: str) -> InputError:
        """The error whose message names the file and its line (or Parquet row) `number`."""
        return InputError(f"{self.path}, {self.noun} {number}, {what}")

    def refuse(self, line: Malformed) -> None:
        """Count a line that cannot be a record, and keep the first few to name them."""
        self.refused[line.reason] += 1
        self._reasons[line.reason] += 1
        if len(self._first) < _NAMED:
            self._first.append(line.with_traceback(None))  # whose frames hold the line

    def refusal(self) -> InputError | None:
        """The error that names what `refuse` was told; None where it was told nothing."""
        if not self._first:
            return None
        first, count = self._first[0], self._reasons.total()
        if count == 1:
            return self.error(first.number, first.what)
        named = ", ".join(str(line.number) for line in self._first) + (", …" if count > _NAMED else "")
        reasons = ", ".join(f"{reason}: {number:,}" for reason, number in self._reasons.most_common())
        return self.error(
            first.number,
            f"{first.what.rstrip('.')}; in all {count:,} {self.noun}s ({named}) cannot be read ({reasons}), and "
            "data.malformed: skip would leave them out.",
        )

    def bytes(self) -> IO[bytes]:
        """The file's bytes from the start, unpacked if they are gzipped."""
        self._raw.seek(0)
        packed = self._raw.read(2) == _GZIP
        self._raw.seek(0)
        return gzip.GzipFile(fileobj=self._raw, mode="rb") if packed else self._raw  # type: ignore[return-value]

    def lines(self, *, each: bool = False) -> Iterator[tuple[int, str]]:
        """Number (from 1) and text of each line, with its line end.

        Args:
            each: every line is a record of its own: one that is no text is told to `refuse` and left out.

        Raises:
            InputError: the file breaks off, or, without `each`, a line is too long, is not UTF-8 or holds NUL bytes.
        """
        stream, number = self.bytes(), 0
        while raw := self.guarded(lambda: stream.readline(LONGEST + 1)):
            number += 1
            line = self._decoded(raw, number)
            if isinstance(line, str):
                yield number, line
                continue
            if not each:
                raise self.error(number, line.what)
            self.refuse(line)
            while len(raw) > LONGEST and not raw.endswith(b"\n"):  # the rest of a long line
                raw = self.guarded(lambda: stream.readline(LONGEST + 1))

    def guarded(self, read: Callable[[], Any]) -> Any:
        """What `read` returns; damage of the file becomes an InputError without a cause."""
        with contextlib.suppress(EOFError, OSError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError):
            return read()
        raise InputError(f"{self.path} is damaged or cut off and cannot be read to its end: copy or export it again.")

    def _decoded(self, raw: bytes, number: int) -> str | Malformed:
        if len(raw) > LONGEST:
            return Malformed(number, "too long", f"is longer than {LONGEST >> 20} MiB: split it into shorter records.")
        if b"\0" in raw:
            return Malformed(number, "not text", "holds NUL bytes, so it is not text: export the data as UTF-8.")
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode("utf-8-sig" if number == 1 else "utf-8")
        return Malformed(number, "not UTF-8", "is not UTF-8 text: save the file as UTF-8.")


def check(path: Path) -> str:
    """The format of a data file (json, csv, text or parquet), after checking that there is something to read.

    Raises:
        InputError: the file is missing, a folder, unreadable, empty, of an unknown format, or binary.
    """
    kind = _format(path)
    head, unpacked = _heads(path)
    if not head:
        raise InputError(f"{path} is empty: give a file that holds records.")
    if path.name.lower().endswith(".gz") and not head.startswith(_GZIP):
        raise InputError(f"{path} is named .gz but is not gzip data: pack it again, or drop the ending.")
    if unpacked is None:
        raise InputError(f"{path} is damaged gzip data: copy or pack it again.")
    if not unpacked:
        raise InputError(f"{path} is empty once unpacked: give a file that holds records.")
    if kind == "parquet" and not unpacked.startswith(b"PAR1"):
        raise InputError(f"{path} is not a Parquet file: export it again, or give it the ending of what it is.")
    pieces = unpacked.splitlines() if kind == "json" else [unpacked]  # of JSON Lines, one line may be broken alone
    if kind != "parquet" and all(b"\0" in piece for piece in pieces):
        raise InputError(f"{path} is a binary file (it holds NUL bytes), not {kind}: export the data as UTF-8 text.")
    return kind


def named(columns: Sequence[str]) -> str:
    """A clause for messages that lists the columns there are.

    Where one name looks like content (a CSV file without a header, say, or objects keyed by people) none is shown.
    """
    if not columns:
        return "there are no columns"
    if not all(_NAME.fullmatch(name) for name in columns):
        return f"the names of its {len(columns)} columns look like content, so they are not shown here"
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return f"the columns there are: {', '.join(columns[:20])}{more}"


def _format(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one data file.")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path of the data file.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: write the data to a file first.")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    for kind, endings in _FORMATS.items():
        if ending in endings:
            return kind
    raise InputError(f"{path} has no known ending: rename it to .jsonl, .csv, .parquet or .txt (.gz may follow).")


def _heads(path: Path) -> tuple[bytes, bytes | None]:
    """The first bytes of the file, raw and unpacked; None where they do not unpack."""
    head = None
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD)
    if head is None:
        raise InputError(f"{path} cannot be opened: check who may read it.")
    if not head.startswith(_GZIP):
        return head, head
    with contextlib.suppress(EOFError, OSError, zlib.error), gzip.open(path) as file:
        return head, file.read(_HEAD)
    return head, None
