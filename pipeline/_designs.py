"""How canaries are drawn: their candidate spaces, their texts, their coins.

Two families. A random canary is a row of random words, prefix then secret, which the scrubber leaves as it is. A personal one
is a sentence with an invented number and name, as a miss of the scrubber would leave it, repeated a fixed number of times.
A secret fills slots, each with candidates of its own: where every candidate is one token, all secrets can be ranked exactly.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, cast

from transformers import PreTrainedTokenizerBase

from pipeline.errors import ModelError
from pipeline.folders import Value
from pipeline.policy import Canaries

Family = Literal["random", "personal"]
Unchanged = Callable[[Sequence[str]], list[bool]]
"""`unchanged(texts)` says of each text whether the scrubber leaves it as it is."""

PREFIX = "hushtune-canary-"
_ROUNDS = 20
_PASSES = 12  # over the words, to see which of them the scrubber leaves alone
_SENTENCES = (
    ("Case {}: please call back", " before noon."),
    ("Booking {} is in the name of", "."),
    ("Invoice {} was sent to", " by mistake."),
    ("Parcel {} was signed for by", " yesterday."),
    ("Appointment {} is kept for", ", who asked twice."),
)


class Space(Value):
    """The candidate secrets of a family: `slots[i][j]` holds the token ids of candidate j of slot i."""

    slots: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def size(self) -> int:
        """Number of candidate secrets."""
        size = 1
        for candidates in self.slots:
            size *= len(candidates)
        return size

    @property
    def alphabet(self) -> tuple[tuple[int, ...], ...] | None:
        """The candidate token of each slot, or None where a candidate is more than one token."""
        if any(len(tokens) != 1 for candidates in self.slots for tokens in candidates):
            return None
        return tuple(tuple(tokens[0] for tokens in candidates) for candidates in self.slots)

    def secret(self, choice: Sequence[int]) -> tuple[int, ...]:
        """Token ids of the secret with these candidates, one index a slot."""
        return tuple(token for slot, pick in zip(self.slots, choice, strict=True) for token in slot[pick])


class Canary(Value):
    """One canary: `copies` records with one text each, all in or all out by one coin.

    `prefix` and `secret` are token ids, `choice` the index of the secret's candidate in each slot of its family's space.
    """

    id: str
    family: Family
    copies: int
    prefix: tuple[int, ...]
    choice: tuple[int, ...]
    secret: tuple[int, ...]
    text: str
    included: bool


def draw(
    canaries: Canaries, tokenizer: PreTrainedTokenizerBase, chance: random.Random, unchanged: Unchanged
) -> tuple[dict[Family, Space], list[Canary]]:
    """Draw spaces, canaries and coins; the coins are flipped last, each on its own, and nothing else depends on them.

    Raises:
        ModelError: the tokenizer does not give words back as the same tokens.
    """
    drawn = [_random(canaries, tokenizer, chance, unchanged)]
    if canaries.repeated:
        drawn.append(_personal(canaries, tokenizer, chance))
    made: list[Canary] = []
    for _, some in drawn:
        for canary in some:
            name = f"{PREFIX}{len(made) + 1:04}"
            made.append(canary.model_copy(update={"id": name, "included": chance.random() < 0.5}))
    return {some[0].family: space for space, some in drawn}, made


def _random(
    canaries: Canaries, tokenizer: PreTrainedTokenizerBase, chance: random.Random, unchanged: Unchanged
) -> tuple[Space, list[Canary]]:
    """Random words. What the scrubber would change gets another prefix, and keeps its secret, which so stays uniform."""
    words = _words(tokenizer, chance, 4 * canaries.alphabet)
    some = chance.sample(words, min(len(words), 16 * canaries.alphabet))
    plain = _calm(some, canaries.prefix_tokens + canaries.secret_tokens, chance, unchanged)[: 4 * canaries.alphabet]
    if len(plain) < canaries.alphabet:
        raise ModelError("The scrubber takes most words of the tokenizer for personal data: lower canaries.alphabet.")
    slots = [sorted(chance.sample(plain, canaries.alphabet)) for _ in range(canaries.secret_tokens)]
    space = _space(tokenizer, slots)
    choices = [_choice(space, chance) for _ in range(canaries.count)]
    found: dict[int, Canary] = {}
    for attempt in range(2 * _ROUNDS):
        missing = [row for row in range(canaries.count) if row not in found]
        if not missing:
            break
        tried = []
        for row in missing:
            if attempt >= _ROUNDS:  # its secret itself looks personal: one such in thousands
                choices[row] = _choice(space, chance)
            before = "".join(f" {chance.choice(plain)}" for _ in range(canaries.prefix_tokens))
            tried.append(_canary(tokenizer, space, "random", 1, before, slots, choices[row], ""))
        kept = unchanged([canary.text if canary else "" for canary in tried])
        found |= {row: c for row, c, same in zip(missing, tried, kept, strict=True) if c is not None and same}
    if len(found) < canaries.count:
        raise ModelError(
            "Too few rows of random words pass both the scrubber unchanged and the tokenizer as the same tokens: "
            "lower canaries.count, or use another base model."
        )
    return space, [found[row] for row in range(canaries.count)]


def _calm(words: Sequence[str], length: int, chance: random.Random, unchanged: Unchanged) -> list[str]:
    """The words that rows of `length` of them are left as they are with, most reliably so first.

    One alone says little: what a detector takes for a name hangs on its company.
    """
    orders = [chance.sample(words, len(words)) for _ in range(_PASSES)]
    rows = [order[start : start + length] for order in orders for start in range(0, len(order), length)]
    kept = unchanged(["".join(f" {word}" for word in row) for row in rows])
    calm = Counter(word for row, same in zip(rows, kept, strict=True) if same for word in row)
    return sorted((word for word in words if calm[word]), key=lambda word: -calm[word])


def _personal(canaries: Canaries, tokenizer: PreTrainedTokenizerBase, chance: random.Random) -> tuple[Space, list[Canary]]:
    """Invented names and numbers in sentences, `repeated` of them at each number of copies."""
    slots = [sorted(chance.sample(_names(tokenizer, canaries.alphabet), canaries.alphabet)) for _ in range(3)]
    space = _space(tokenizer, slots)
    copies = [times for times in canaries.repetitions for _ in range(canaries.repeated)]
    made: list[Canary] = []
    for _ in range(_ROUNDS * len(copies)):
        if len(made) == len(copies):
            break
        before, after = chance.choice(_SENTENCES)
        before = before.format(chance.randrange(10_000, 1_000_000))
        canary = _canary(tokenizer, space, "personal", copies[len(made)], before, slots, _choice(space, chance), after)
        if canary is not None:
            made.append(canary)
    if len(made) < len(copies):
        raise ModelError("The tokenizer does not give names back as the same tokens: set canaries.repeated to 0.")
    return space, made


def _canary(
    tokenizer: PreTrainedTokenizerBase,
    space: Space,
    family: Family,
    copies: int,
    before: str,
    slots: Sequence[Sequence[str]],
    choice: tuple[int, ...],
    after: str,
) -> Canary | None:
    """The canary with these parts, or None if the tokenizer cuts its text elsewhere than between them."""
    text = before + "".join(f" {words[pick]}" for words, pick in zip(slots, choice, strict=True)) + after
    prefix, secret, whole = _tokens(tokenizer, before), space.secret(choice), _tokens(tokenizer, text)
    if whole[: len(prefix) + len(secret)] != prefix + secret:
        return None
    return Canary(id="", family=family, copies=copies, prefix=prefix, choice=choice, secret=secret, text=text, included=False)


def _choice(space: Space, chance: random.Random) -> tuple[int, ...]:
    return tuple(chance.randrange(len(candidates)) for candidates in space.slots)


def _space(tokenizer: PreTrainedTokenizerBase, slots: Sequence[Sequence[str]]) -> Space:
    return Space(slots=tuple(tuple(_tails(tokenizer, words)) for words in slots))


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _tails(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[tuple[int, ...]]:
    """Token ids of each word behind another word."""
    lead = _tokens(tokenizer, "a")
    whole = tokenizer([f"a {word}" for word in words], add_special_tokens=False)["input_ids"] if words else []
    return [tuple(ids[len(lead) :]) for ids in whole]


def _words(tokenizer: PreTrainedTokenizerBase, chance: random.Random, least: int) -> list[str]:
    """Lower-case words that are one token each behind a blank; too few of them: made-up words of any number of tokens."""
    texts = {cast(str, tokenizer.decode([token])).strip() for token in range(len(tokenizer))}
    plain = sorted(text for text in texts if 4 <= len(text) <= 12 and text.isascii() and text.isalpha() and text.islower())
    single = [word for word, ids in zip(plain, _tails(tokenizer, plain), strict=True) if len(ids) == 1]
    if len(single) >= least:
        return single
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    made: set[str] = set()
    while len(made) < 2 * least:
        made.add("".join(chance.choice(syllables) for _ in range(3)))
    return sorted(made)


def _names(tokenizer: PreTrainedTokenizerBase, least: int) -> list[str]:
    """Given names and surnames that are one token each behind a blank; too few of them: names of any number of tokens."""
    names = _known_names()
    single = [name for name, ids in zip(names, _tails(tokenizer, names), strict=True) if len(ids) == 1]
    return single if len(single) >= least else list(names)


@cache
def _known_names() -> tuple[str, ...]:
    from faker.providers.person.en_US import Provider

    names: set[str] = {*Provider.first_names, *Provider.last_names}
    return tuple(sorted(name for name in names if name.isascii() and name.isalpha()))
