r"""A small grammar that writes texts with gold spans: pools of templates in, segments with labels out.

    = greeting
    [Dear|Hello] {doctor},
    = *signature                   a person keeps the first choice from a pool with a star
    = bank/company ORGANIZATION    a pool of the topic `bank`, whose choices are gold spans

`{slot}` is a value or another pool, `{Slot}` the same with a capital, `[a|b]` a choice, `a(n)` the right article, `\n` a
line end. An option whose slots have no value in a scope (no NHS number outside Britain, say) is passed over.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Segment = tuple[str, str | None]
"""A stretch of text and the label of the gold span that it is, or None."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value or for a choice from a pool."""

    name: str
    capital: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences."""

    options: tuple[tuple[Node, ...], ...]


Node = str | Slot | Choice


@dataclass(frozen=True, slots=True)
class Pool:
    """Templates of which one is chosen."""

    name: str
    options: tuple[tuple[Node, ...], ...]
    sticky: bool
    label: str | None


@dataclass(slots=True)
class Scope:
    """What one text can draw on: the topic, the values of the slots, and what its person has settled on."""

    topic: str
    values: Mapping[str, Callable[[], list[Segment]]]
    random: random.Random
    kept: dict[str, tuple[Node, ...]]
    used: set[int] = field(default_factory=set)
    possible: dict[int, bool] = field(default_factory=dict)


class Grammar:
    """Pools of one kind of message, read from a file."""

    def __init__(self, path: Path):
        self._pools = {pool.name: pool for pool in _pools(path.read_text(encoding="utf-8"))}

    def topics(self) -> list[str]:
        """The topics that the file has pools for, in its order."""
        return list(dict.fromkeys(name.split("/")[0] for name in self._pools if "/" in name))

    def layouts(self, pool: str) -> list[str]:
        """The names of the slots that a pool of single slots offers; one that is listed twice is twice as likely."""
        return [node.name for option in self._pools[pool].options for node in option if isinstance(node, Slot)]

    def write(self, name: str, scope: Scope) -> list[Segment]:
        """Segments of one choice from a pool; a text does not say the same thing twice if there is another."""
        pool = self._pool(name, scope)
        assert pool is not None, f"no pool or value named {name}"
        options = [option for option in pool.options if self._possible(option, scope)]
        option = scope.random.choice([option for option in options if id(option) not in scope.used] or options)
        scope.used.add(id(option))
        if pool.sticky:
            option = scope.kept.setdefault(pool.name, option)
        segments = _asked(self._written(option, scope))
        return [("".join(text for text, _ in segments), pool.label)] if pool.label else segments

    def _pool(self, name: str, scope: Scope) -> Pool | None:
        return self._pools.get(f"{scope.topic}/{name}") or self._pools.get(name)

    def _written(self, nodes: Iterable[Node], scope: Scope) -> list[Segment]:
        segments: list[Segment] = []
        for node in nodes:
            if isinstance(node, str):
                segments.append((node, None))
            elif isinstance(node, Choice):
                options = [option for option in node.options if self._possible(option, scope)]
                segments += self._written(scope.random.choice(options), scope)
            else:
                value = scope.values.get(node.name)
                inner = value() if value else self.write(node.name, scope)
                segments += _capitalised(inner) if node.capital else inner
        return segments

    def _possible(self, nodes: tuple[Node, ...], scope: Scope) -> bool:
        known = scope.possible.get(id(nodes))
        if known is None:
            known = scope.possible[id(nodes)] = all(self._fillable(node, scope) for node in nodes)
        return known

    def _fillable(self, node: Node, scope: Scope) -> bool:
        if isinstance(node, str) or (isinstance(node, Slot) and node.name in scope.values):
            return True
        if isinstance(node, Choice):
            return any(self._possible(option, scope) for option in node.options)
        pool = self._pool(node.name, scope)
        return pool is not None and any(self._possible(option, scope) for option in pool.options)


def finished(segments: Iterable[Segment], change: Callable[[str], str]) -> tuple[str, list[dict[str, int | str]]]:
    """Text and gold spans of segments: spaces and articles put right, `change` applied to what is in no span."""
    text, spans = "", []
    for piece, label in _spaced(segments):
        if label is not None:
            spans.append({"start": len(text), "end": len(text) + len(piece), "label": label})
        text += piece if label is not None else change(piece)
    return text, spans


def _pools(text: str) -> Iterator[Pool]:
    name, sticky, label, options = "", False, None, []
    for line in [*text.splitlines(), "= end"]:
        if line.startswith("= "):
            if options:
                yield Pool(name, tuple(options), sticky, label)
            name, _, label = line[2:].partition(" ")
            name, sticky, label, options = name.lstrip("*"), name.startswith("*"), label or None, []
        elif line and not line.startswith("#"):
            options.append(parsed(line.replace("\\n", "\n")))


def parsed(template: str) -> tuple[Node, ...]:
    """The nodes of a template.

    >>> parsed("Hi[ {Name}|],")
    ('Hi', Choice(options=((' ', Slot(name='name', capital=True)), ())), ',')
    """
    nodes, rest = _sequence(re.findall(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+", template), nested=False)
    assert not rest, f"unbalanced brackets: {template}"
    return nodes


def _sequence(tokens: list[str], *, nested: bool) -> tuple[tuple[Node, ...], list[str]]:
    nodes: list[Node] = []
    while tokens and not (nested and tokens[0] in "|]"):
        token, *tokens = tokens
        if token == "[":
            options = []
            while not options or tokens.pop(0) == "|":
                option, tokens = _sequence(tokens, nested=True)
                options.append(option)
            nodes.append(Choice(tuple(options)))
        elif token.startswith("{"):
            name = token[1:-1]
            nodes.append(Slot(name[0].lower() + name[1:], name[0].isupper()))
        else:
            nodes.append(token)
    return tuple(nodes), tokens


def _capitalised(segments: list[Segment]) -> list[Segment]:
    (text, label), *rest = segments
    return segments if label else [(text[:1].upper() + text[1:], None), *rest]


def _asked(segments: list[Segment]) -> list[Segment]:
    """A sentence that begins as a question ends as one."""
    (first, _), (last, label) = segments[0], segments[-1]
    asks = label is None and re.match(r"(Can|Could|May|Would)( |$)", first)
    return [*segments[:-1], (re.sub(r"\.$", "?", last), None)] if asks else segments


def _spaced(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Neighbouring plain segments joined; no space doubled, none before a stop or at a line's end; articles chosen."""
    joined: list[Segment] = []
    for text, label in segments:
        if label is None and joined and joined[-1][1] is None:
            joined[-1] = (joined[-1][0] + text, None)
        elif text:
            joined.append((text, label))
    before = ""
    for (text, label), (after, _) in zip(joined, [*joined[1:], ("", None)], strict=True):
        if label is None:
            text = text.removeprefix(".") if before.endswith(".") else text  # a firm's "S.L." ends the sentence too
            text = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text))
            text = re.sub(r"([.?!])\.", r"\1", re.sub(r" +([,.;:?!])", r"\1", text))
            text = _with_article(text, after).rstrip(None if not after else "")
        yield text, label
        before = text


def _with_article(text: str, after: str) -> str:
    *pieces, last = re.split(r"\(n\) ", text)
    starts = [*pieces[1:], last or after] if pieces else []
    return "".join(piece + ("n " if _vowel(start) else " ") for piece, start in zip(pieces, starts, strict=True)) + last


def _vowel(word: str) -> bool:
    return bool(re.match(r"(?!uni|use|eu|one|U[KS])[aeiouAEIOU]|hour|honest|[FHLMNRSX][A-Z-]", word))
