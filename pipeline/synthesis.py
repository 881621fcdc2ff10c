"""A synthetic corpus from a released model, and how close it comes to what the model was trained on.

Writing text with a private model is post-processing: it costs no further privacy (Dwork and Roth 2014, proposition 2.1). The
comparison with the private records is not: its counts and distances are outside the guarantee, and belong beside the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon

from pipeline.corpus import load_records
from pipeline.folders import Progress, Value, silent, write_json, write_lines
from pipeline.guard import Guard, Guarded
from pipeline.overlap import runs, words

RUN_OF_WORDS = 13  # that a text must share with a training record to count as overlapping: long enough not to be a set phrase
OUTSIDE = "Overlap and distance compare with private records and are outside the privacy guarantee: keep them beside the run."


class Overlap(Value):
    """Of `texts` synthetic texts: how many equal a training record, and how many share 13 words in a row with one."""

    texts: int
    equal: int
    sharing: int


class Distance(Value):
    """Jensen–Shannon distances (base 2, in [0, 1]) between the distributions of single tokens.

    `synthetic` is that of the synthetic texts to held-out records, `floor` that of one half of the held-out records to the
    other: what two samples of the same source show.
    """

    synthetic: float
    floor: float
    held_out: int


class Synthetic(Value):
    """What was written: `texts` records in `output`, what the guard found in them, and what could be compared.

    `overlap` and `distance` are None where the run's folder, with the private records, is no longer here.
    """

    output: Path
    texts: int
    tokens: int
    guarded: Guarded | None
    overlap: Overlap | None
    distance: Distance | None
    note: str = OUTSIDE


def synthesize(
    write: Callable[[int], Iterator[list[str]]],
    tokenizer: Any,
    count: int,
    output: Path,
    *,
    guard: Guard | None = None,
    planted: Path | None = None,
    progress: Progress = silent,
) -> Synthetic:
    """Write `count` synthetic records to `output` (JSONL, {"id", "text"}), and a report beside it, OUTPUT.report.json.

    Args:
        write: gives batches of generated texts, `count` in all.
        tokenizer: the model's, for token counts.
        count: records to write.
        output: the file; it appears when it is whole.
        guard: replaces what looks like personal data by its type, and counts it.
        planted: folder of the run's training and held-out records.
        progress: called with records done and in all.

    Returns:
        The report.
    """
    overlap = _Overlaps(_texts(planted / "train.jsonl")) if planted else None
    tokens: Counter[int] = Counter()
    done = 0

    def lines() -> Iterator[str]:
        nonlocal done
        for texts in write(count):
            if overlap:
                overlap.look(texts)  # before the guard: what it takes out must not hide a copy
            for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
                tokens.update(ids)
            for text in guard.check(texts) if guard else texts:
                done += 1
                yield json.dumps({"id": f"synthetic-{done}", "text": text}, ensure_ascii=False) + "\n"
            progress(done, count)

    write_lines(output, lines())
    made = Synthetic(
        output=output,
        texts=done,
        tokens=sum(tokens.values()),
        guarded=guard.found if guard else None,
        overlap=overlap.found if overlap else None,
        distance=_distance(tokens, planted / "held_out.jsonl", tokenizer) if planted else None,
    )
    write_json(output.with_name(output.name + ".report.json"), made.model_dump(mode="json", exclude={"output"}))
    return made


class _Overlaps:
    """Looks for training records, and runs of words of them, in other texts. Only hashes of either are held."""

    def __init__(self, training: Iterable[str]) -> None:
        self._whole: set[int] = set()
        self._runs: set[int] = set()
        for text in training:
            some = words(text)
            self._whole.add(hash(tuple(some)))
            self._runs.update(hash(run) for run in runs(some, RUN_OF_WORDS))
        self._texts = self._equal = self._sharing = 0

    def look(self, texts: Sequence[str]) -> None:
        """Count these texts."""
        for text in texts:
            some = words(text)
            self._texts += 1
            self._equal += bool(some) and hash(tuple(some)) in self._whole
            self._sharing += any(hash(run) in self._runs for run in runs(some, RUN_OF_WORDS))

    @property
    def found(self) -> Overlap:
        return Overlap(texts=self._texts, equal=self._equal, sharing=self._sharing)


def _distance(tokens: Counter[int], held_out: Path, tokenizer: Any) -> Distance | None:
    halves: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    records = 0
    for records, text in enumerate(_texts(held_out), 1):
        halves[records % 2].update(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not tokens or not all(halves):
        return None
    return Distance(synthetic=_jensen_shannon(tokens, halves[0] + halves[1]), floor=_jensen_shannon(*halves), held_out=records)


def _jensen_shannon(one: Counter[int], other: Counter[int]) -> float:
    known = sorted(one.keys() | other.keys())
    return float(jensenshannon(*(np.array([counts[token] for token in known], float) for counts in (one, other)), base=2))


def _texts(path: Path) -> Iterator[str]:
    return ("\n".join(part.text for part in record.parts) for record in load_records(path))
