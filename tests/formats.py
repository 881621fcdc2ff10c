"""Rows written in every input format, for tests."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".parquet", ".txt")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format of the path's ending; plain text has room for their texts only, CSV for lists as JSON."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif name.endswith(".csv"):
        made = io.StringIO()
        table = csv.writer(made)
        table.writerow(rows[0])
        table.writerows([json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in rows)
        text = made.getvalue()
    else:
        text = "\n\n".join(row["text"] for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path
