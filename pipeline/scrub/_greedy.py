"""spaCy's greedy entity recogniser, whole batches of texts at a time in numpy: the same entities in half the time.

spaCy 3.8 takes and releases Python's global lock several times for each of the 74 moves that it weighs at each token, which is
half of what its recogniser costs. Its transition system for entities (BILUO: begin, in, last, unit, out) takes exactly one move
a token, so that all texts of a batch can move together: add the three precomputed features of each state (this token, the
first of the open entity, the one before this), the larger of each pair, one matrix product, the best move that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

TOKENS = 4096  # of a batch: what is precomputed for them, 1.5 KB each, should fit a processor's cache
_CLOSED, _LAST, _SPACE, _OPEN = 0, 1, 2, 3  # states: no entity open; that at the last token; that at a blank; label l: 3 + 2l


class Greedy:
    """The pipe `ner` of a spaCy pipeline, without beam, unseen classes, or entities set beforehand.

    Args:
        nlp: a pipeline of which this pipe alone is to run.
    """

    def __init__(self, nlp: Any):
        ner = nlp.get_pipe("ner")
        self._tokenize, (self._embed, self._lower, self._upper) = nlp.make_doc, ner.model.layers
        self._features, self._hidden, self._pieces = (self._lower.get_dim(name) for name in ("nF", "nO", "nP"))
        if ner.cfg["beam_width"] != 1 or ner.model.attrs["unseen_classes"] or (self._features, self._pieces) != (3, 2):
            raise ValueError("not a greedy recogniser of three features and two pieces")
        self._bias = self._lower.get_param("b").reshape(-1)
        moves = [ner.moves.get_class_name(index) for index in range(ner.moves.n_moves)]
        self.labels = sorted({move[2:] for move in moves} - {""})
        self._kinds = np.array([move[0] for move in moves])
        self._label = np.array([self.labels.index(move[2:]) if move[2:] else -1 for move in moves])
        self._penalty = np.where(self._allowed(), np.float32(0), np.float32(-np.inf)).astype(np.float32)

    def _allowed(self) -> Any:
        """Which move (column) each state (row) may make: `is_valid` of spaCy's moves where nothing is set beforehand."""
        kinds, named = self._kinds, self._label >= 0
        rows = [(np.isin(kinds, list("BU")) & named) | (kinds == "O"), ((kinds == "U") & named) | (kinds == "O"), kinds == "O"]
        for label in range(len(self.labels)):
            own = self._label == label
            rows += [own & np.isin(kinds, list("IL")), own & (kinds == "L")]
        return np.stack(rows)

    def find(self, texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        """For each text its entities: start and end character, label."""
        docs = [self._tokenize(text) for text in texts]
        found: list[list[tuple[int, int, str]]] = [[] for _ in texts]
        for batch in self._batches(docs):
            for row, start, end, label in self._entities([docs[index] for index in batch]):
                doc = docs[batch[row]]
                last = doc[end]
                found[batch[row]].append((doc[start].idx, last.idx + len(last), self.labels[label]))
        return found

    def _batches(self, docs: Sequence[Any]) -> Iterator[list[int]]:
        """Indices of texts of like length, longest first, those without a token left out."""
        batch: list[int] = []
        size = 0
        for index in sorted((index for index, doc in enumerate(docs) if len(doc)), key=lambda index: -len(docs[index])):
            if batch and size + len(docs[index]) > TOKENS:
                yield batch
                batch, size = [], 0
            batch.append(index)
            size += len(docs[index])
        if batch:
            yield batch

    def _entities(self, docs: list[Any]) -> Iterator[tuple[int, int, int, int]]:
        """Entities of texts in falling order of length: text, first token, last token, label."""
        from spacy.attrs import IS_SPACE

        lengths = np.array([len(doc) for doc in docs])
        offsets = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        spaces = np.concatenate([doc.to_array([IS_SPACE]) for doc in docs]).astype(bool).reshape(-1)
        cached = self._lower.predict(self._embed.predict(docs)).reshape(-1, self._features, self._hidden * self._pieces)
        here, first, before = (np.ascontiguousarray(cached[:, at]) for at in range(3))  # row 0 stands for no token
        opened = np.full(len(docs), -1)  # first token of the open entity
        label = np.zeros(len(docs), int)
        for step in range(lengths[0]):
            active = int(np.searchsorted(-lengths, -step))  # texts longer than this
            token, start = offsets[:active] + step, opened[:active]
            inside, last = start >= 0, lengths[:active] == step + 1
            summed = here[token + 1]
            summed += first[np.where(inside, offsets[:active] + start + 1, 0)]
            summed += before[np.where(inside, token, 0)]
            summed += self._bias
            scores = self._upper.predict(np.maximum(summed[:, ::2], summed[:, 1::2]))
            closed = np.where(spaces[token], _SPACE, np.where(last, _LAST, _CLOSED))
            scores += self._penalty[np.where(inside, _OPEN + 2 * label[:active] + last, closed)]
            move = scores.argmax(-1)
            kind = self._kinds[move]
            for row in np.flatnonzero(kind != "O"):
                if kind[row] == "B":
                    opened[row], label[row] = step, self._label[move[row]]
                elif kind[row] == "U":
                    yield int(row), step, step, int(self._label[move[row]])
                elif kind[row] == "L":
                    yield int(row), int(opened[row]), step, int(label[row])
                    opened[row] = -1
