"""Pattern recognisers behind one small interface: our own rules, Presidio's for any country, and a user's YAML file.

Presidio's e-mail, URL and phone recognisers are replaced or guarded: the first asks the network for a list of domains, the
second stops at the first top-level domain that fits, the third tries eight countries on every text.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import presidio_analyzer.predefined_recognizers as predefined
import regex
import yaml
from presidio_analyzer import PatternRecognizer
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from pipeline.errors import PolicyError
from pipeline.policy import Scrub
from pipeline.scrub._patterns import CONTEXT, RULES
from pipeline.scrub.detect import Span

DENIED = "DENIED"  # the entity of the policy's deny list
_REPLACED = {"EmailRecognizer", "UrlRecognizer", "PhoneRecognizer"}
_EXACT = {"EMAIL_ADDRESS", "URL", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "RECORD_NUMBER", "SECRET"}
_DIGIT, _PHONE = regex.compile(r"\d"), regex.compile(r"\d(?:\D{0,4}\d){6}")
_NUMBER = regex.compile(r"[+(]{0,2}\d(?:[^\p{L}\n]{0,4}\d)*")  # with the digits that a phone number could go on with
_NO_DIGITS = {"MAC_ADDRESS", "CRYPTO", "EMAIL_ADDRESS", "URL", "SECRET"}  # of all others a match holds a digit
_RAISE, _AT_LEAST, _NEAR = 0.35, 0.4, 50  # Presidio's amounts; characters before a match in which a context word counts


class Recogniser(NamedTuple):
    """Finds one entity by patterns.

    `find` gives start, end and score; `needs` must be in the text or it is not looked at; `context` raises scores near it;
    `exact` asks for the text as it was typed, not as `recased` shows it; one that is `slow` comes after the others and is
    not shown the numbers that they found whole.
    """

    entity: str
    find: Any
    needs: Any
    context: Any
    exact: bool
    slow: bool = False

    def spans(self, text: str) -> Iterator[Span]:
        """What is found in a text."""
        if self.needs is None or self.needs.search(text):
            for start, end, score in self.find(text):
                yield Span(start, end, self.entity, round(self._raised(text, start, end, score), 4))

    def _raised(self, text: str, start: int, end: int, score: float) -> float:
        words = self.context
        if words is None or score >= 1:
            return float(score)
        near = words.search(text, max(0, start - _NEAR), start) or words.search(text, end, end + _NEAR // 3)
        return min(1.0, max(score + _RAISE, _AT_LEAST)) if near else float(score)


class _Numbers:
    """Whether a text is worth the phone library's while: enough digits, and no table of numbers, on which it takes minutes.

    Our own rules for phone numbers read every text.
    """

    def search(self, text: str) -> bool:
        """True if the text should be looked at."""
        return _PHONE.search(text) is not None and (len(text) < 200 or sum(map(str.isdigit, text)) < 0.35 * len(text))


def without(text: str, found: Sequence[Span]) -> str:
    """The text, of the same length, with a mark for each character of the numbers of which every digit was found."""
    taken = {at for span in found for at in range(span.start, span.end)}

    def masked(number: Any) -> str:
        left = any(at not in taken for at in range(*number.span()) if text[at].isdigit())
        return number.group() if left else "¦" * len(number.group())

    return _NUMBER.sub(masked, text)


def recognisers(scrub: Scrub, model: frozenset[str]) -> list[Recogniser]:
    """The recognisers for a policy's entities, its countries, its deny list and its YAML file.

    Raises:
        PolicyError: an entity or country that nobody finds, or a bad YAML file.
    """
    shipped, custom = _shipped(), _custom(scrub)
    wanted = set(scrub.entities) | _pack(scrub, shipped)
    supported = sorted(model | set(RULES) | {entity for entity, _ in shipped} | {one.entity for one in custom})
    if unknown := sorted(wanted.difference(supported)):
        near = difflib.get_close_matches(unknown[0], supported, 3, 0.5) or ["PERSON", "EMAIL_ADDRESS"]
        raise PolicyError(
            f"scrub.entities names {unknown[0]}, which no recogniser finds: remove it, or name one that is found, such as "
            f"{' or '.join(near)}."
        )
    found = [_rules(entity) for entity in sorted(wanted & set(RULES))]
    if "PHONE_NUMBER" in wanted:
        phones = _presidio("PHONE_NUMBER", PhoneRecognizer(supported_language=scrub.language), _Numbers())
        found.append(phones._replace(slow=True))  # it parses every number for eight countries
    for entity, kind in shipped:
        if entity in wanted:
            found.append(_presidio(entity, kind(supported_language=scrub.language), None if entity in _NO_DIGITS else _DIGIT))
    return found + custom + _denied(scrub.deny)


def _rules(entity: str) -> Recogniser:
    compiled = [(regex.compile(rule.pattern), rule.score) for rule in RULES[entity]]

    def find(text: str) -> Iterator[tuple[int, int, float]]:
        for pattern, score in compiled:
            for match in pattern.finditer(text):
                yield (*match.span("value" if "value" in pattern.groupindex else 0), score)

    needs = _DIGIT if entity in _EXACT - _NO_DIGITS else None
    return Recogniser(entity, find, needs, _words(CONTEXT.get(entity, ())), entity in _EXACT)


def _presidio(entity: str, recogniser: Any, needs: Any) -> Recogniser:
    def find(text: str) -> Iterator[tuple[int, int, float]]:
        for one in recogniser.analyze(text, [entity], None):
            yield one.start, one.end, one.score

    return Recogniser(entity, find, needs, _words(recogniser.context or ()), exact=True)


def _denied(words: Sequence[str]) -> list[Recogniser]:
    if not words:
        return []
    pattern = regex.compile(
        rf"(?i)(?<!\w)(?:{'|'.join(regex.escape(word) for word in sorted(words, key=len, reverse=True))})(?!\w)"
    )
    return [Recogniser(DENIED, lambda text: ((*match.span(), 1.0) for match in pattern.finditer(text)), None, None, exact=True)]


def _words(words: Sequence[str]) -> Any:
    joined = "|".join(regex.escape(word.strip()) for word in words)
    return regex.compile(rf"(?i)(?<!\p{{L}})(?:{joined})") if joined else None


def _custom(scrub: Scrub) -> list[Recogniser]:
    """The pattern and deny-list recognisers of a file in Presidio's YAML format."""
    if scrub.recognizers is None:
        return []
    path = Path(scrub.recognizers)
    if not path.is_file():
        raise PolicyError(f"scrub.recognizers names {path}, which does not exist: give a YAML file of Presidio recognisers.")
    try:
        made = [_from_yaml(one, scrub.language) for one in yaml.safe_load(path.read_text(encoding="utf-8"))["recognizers"]]
        if made:
            return [_presidio(one.supported_entities[0], one, None) for one in made]
        kind = "it lists none"
    except Exception as error:
        kind = type(error).__name__
    raise PolicyError(f"scrub.recognizers: {path} is not a YAML file of Presidio pattern recognisers ({kind}): mend it.")


def _from_yaml(content: dict[str, Any], language: str) -> PatternRecognizer:
    """A recogniser of one entry: either of the spellings that Presidio reads, with one language or a list of them."""
    content = {key: value for key, value in content.items() if key not in ("type", "enabled")}
    for one in content.pop("supported_languages", [language]):
        code, context = (one["language"], one.get("context")) if isinstance(one, dict) else (one, None)
        if code == language:
            content["supported_language"] = code
            content |= {"context": context} if context else {}
    if content.get("supported_language") != language:
        raise ValueError("another language")
    return PatternRecognizer.from_dict(content)


def _pack(scrub: Scrub, shipped: Sequence[tuple[str, Any]]) -> set[str]:
    """The entities of the policy's countries."""
    countries: dict[str, set[str]] = {}
    for entity, kind in shipped:
        _, _, country = kind.__module__.partition("country_specific.")
        if country:
            countries.setdefault(country.split(".")[0], set()).add(entity)
    if unknown := sorted(set(scrub.countries).difference(countries)):
        raise PolicyError(f"scrub.countries names {unknown[0]}, which has no pack: choose of {', '.join(sorted(countries))}.")
    return set().union(*(countries[country] for country in scrub.countries))


def _shipped() -> list[tuple[str, Any]]:
    """Presidio's pattern recognisers with their entities, those of all countries included."""
    found = []
    for name, kind in sorted(vars(predefined).items()):
        if inspect.isclass(kind) and issubclass(kind, PatternRecognizer) and name not in _REPLACED:
            parameter = inspect.signature(kind).parameters.get("supported_entity")
            if parameter is not None and isinstance(parameter.default, str):
                found.append((parameter.default, kind))
    return sorted(found, key=lambda pair: (pair[0], pair[1].__name__))
