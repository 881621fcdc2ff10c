"""Realistic stand-ins of the same kind and form, chosen by a secret key and never from the data.

A surrogate is drawn from fixed lists (Faker's) or made character by character, by HMAC-SHA256 of the key, the person (or
the corpus), the entity and the normalised value: the same value gives the same surrogate, word for word, so that `Ada
Lovelace` and later `Lovelace` agree. Addresses, numbers and hosts lie in ranges reserved for documentation where there are
such. Dates move by one offset for each person, a whole number of weeks: intervals and weekdays stay.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

from pipeline.errors import PolicyError
from pipeline.scrub import _dates
from pipeline.scrub._reading import plain
from pipeline.scrub.keys import derived

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_TITLES = frozenset("mr mrs ms miss mx dr prof professor rev hon sir dame judge justice captain lord lady and or".split())
_AFTER = frozenset("jr sr phd md qc".split())
_PARTICLES = frozenset("van von der den de del della di da dos la le el al bin ibn ben zu ter and or".split())
_NEUTRAL = (
    "Alex Ariel Ashley Avery Blake Cameron Casey Charlie Dana Devon Drew Eden Ellis Emery Finley Francis Frankie Gale Harley "
    "Hayden Hollis Jackie Jamie Jesse Jody Jordan Jules Kelly Kendall Kerry Kim Kit Kyle Lee Leslie Logan Lynn Marion Morgan "
    "Noel Pat Peyton Quinn Reese Remy Riley Robin Rory Rowan Sam Sandy Sasha Shannon Shawn Sidney "
    "Skyler Stacy Taylor Terry Toby Tracy"
).split()
_PEOPLES = (
    "Andorran Bhutanese Chilean Danish Estonian Fijian Ghanaian Icelandic Kenyan Latvian Maltese Nepalese Omani Peruvian"
).split()
_WHOLE = ("SECRET", "CRYPTO", "DENIED", "AMOUNT", "TRAIT")  # nothing realistic stands for these
_ORGANISATIONS = re.compile(
    r"(?i)(hospital|clinic|university|college|school|bank|court|prison|ministry|police|insurance|pharmacy)\W*$"
)


class Surrogates:
    """The operator `surrogate`: called with value, entity and unit.

    Raises:
        PolicyError: Faker has no such locale.
    """

    def __init__(self, key: bytes, *, locale: str, everywhere: bool):
        from faker import Faker
        from faker.config import AVAILABLE_LOCALES

        if locale not in AVAILABLE_LOCALES:
            raise PolicyError(f"scrub.locale is {locale}, for which there are no surrogates: give one such as en_US or de_DE.")
        self._key, self._everywhere = key, everywhere
        self._faker: Any = Faker(locale)
        self._day_first = not locale.endswith("_US")
        people = next((one for one in self._faker.factories[0].get_providers() if hasattr(one, "last_names")), None)
        self._male, self._female = (_known(people, f"first_names_{sex}", "first_names") for sex in ("male", "female"))
        self._last = _known(people, "last_names")

    def __call__(self, value: str, entity: str, unit: str) -> str:
        """The surrogate of a value: of its kind and form, never the value itself."""
        from pipeline.scrub.operators import normalised

        value = plain(value)[0]
        scope = "" if self._everywhere else unit
        if entity in _WHOLE:
            return f"<{entity}>"
        if entity == "DATE_TIME":
            return _dates.shifted(value, self.offset(unit), day_first=self._day_first) or f"<{entity}>"
        make = getattr(self, f"_{entity.lower()}", self._pattern)
        for attempt in range(20):
            new = make(value, scope, f"{entity} {attempt}")
            if normalised(new) != normalised(value):
                return new
        return f"<{entity}>"  # nothing in it could change: a value of marks alone

    def offset(self, unit: str) -> timedelta:
        """By how much a person's dates move: 53 to 156 weeks, back or forth, the same for all of a unit's dates."""
        drawn = int.from_bytes(derived(self._key, "dates", unit)[:8], "big")
        weeks = 53 + (drawn >> 1) % 104  # over a year, so that a year alone changes too
        return timedelta(weeks=weeks if drawn & 1 else -weeks)

    def _random(self, scope: str, kind: str, value: str) -> random.Random:
        from pipeline.scrub.operators import normalised

        return random.Random(derived(self._key, "surrogate", scope, kind, normalised(value)))

    def _person(self, value: str, scope: str, kind: str) -> str:
        """Every word another, but titles and particles where they surely are such: Ben, Le and Judge are names too."""
        words = list(_WORD.finditer(value))
        kept = _kept_words([word.group() for word in words])
        digits = self._random(scope, f"{kind} digits", value)
        pieces, end = [], 0
        for word, stays in zip(words, kept, strict=True):
            pieces.append(_other_digits(value[end : word.start()], digits))
            pieces.append(word.group() if stays else self._name(word.group(), scope, kind))
            end = word.end()
        return "".join([*pieces, _other_digits(value[end:], digits)])

    def _name(self, word: str, scope: str, kind: str) -> str:
        bare = re.sub(r"['’]s\Z", "", word)
        chosen = self._random(scope, f"{kind} name", bare)
        if len(bare) == 1:
            new = chosen.choice("ABCDEFGHJKLMNPRSTW")
        else:
            name, (male, female) = bare.capitalize(), (set(self._male), set(self._female))
            pool = self._last if name not in male | female else _NEUTRAL
            if name in male ^ female:
                pool = self._male if name in male else self._female
            new = chosen.choice(pool)
            while new.casefold() == bare.casefold():
                new = chosen.choice(pool)
        return _cased(new, bare) + word[len(bare) :]

    def _email_address(self, value: str, scope: str, kind: str) -> str:
        chosen = self._random(scope, kind, value)
        names = [re.sub(r"\W", "", chosen.choice(pool)).lower() for pool in (_NEUTRAL, self._last)]
        host = chosen.choice(("example.com", "example.org", "example.net"))  # RFC 2606
        return f"{chosen.choice(('.', '_', '')).join(names)}{chosen.randrange(10, 100)}@{host}"

    def _url(self, value: str, scope: str, kind: str) -> str:
        chosen = self._random(scope, kind, value)
        scheme = re.match(r"[a-z][a-z0-9+.-]*://", value, re.I)
        path = f"/{chosen.randrange(16**8):08x}" if "/" in value[scheme.end() if scheme else 0 :] else ""
        return f"{scheme.group() if scheme else 'www.'}example.{chosen.choice(('com', 'org', 'net'))}{path}"

    def _ip_address(self, value: str, scope: str, kind: str) -> str:
        chosen = self._random(scope, kind, value)
        if ":" in value and "." not in value:
            return str(ipaddress.IPv6Address((0x20010DB8 << 96) | chosen.getrandbits(96)))  # RFC 3849
        return f"{chosen.choice(('192.0.2', '198.51.100', '203.0.113'))}.{chosen.randrange(1, 255)}"  # RFC 5737

    def _phone_number(self, value: str, scope: str, kind: str) -> str:
        digits = sum(map(str.isdigit, value))
        fixed = {digits - 7 + at: digit for at, digit in enumerate("55501")} if digits in (10, 11) else {}
        return self._pattern(value, scope, kind, fixed)  # 555-01xx is reserved for fiction

    def _us_ssn(self, value: str, scope: str, kind: str) -> str:
        return self._pattern(value, scope, kind, {0: "9"})  # never issued

    def _credit_card(self, value: str, scope: str, kind: str) -> str:
        new = self._pattern(value, scope, kind)
        digits = [int(character) for character in new if character.isdigit()]
        places = [at for at, character in enumerate(new) if character.isdigit()]
        check = -luhn([*digits[:-1], 0]) % 10
        return new[: places[-1]] + str(check) + new[places[-1] + 1 :] if places else new

    def _iban_code(self, value: str, scope: str, kind: str) -> str:
        plain = re.sub(r"\W", "", value).upper()
        new = self._pattern(value, scope, kind, {0: plain[:1], 1: plain[1:2]})
        flat = re.sub(r"\W", "", new).upper()
        check = f"{98 - int(''.join(str(int(c, 36)) for c in flat[4:] + flat[:2] + '00')) % 97:02d}"
        return self._pattern(value, scope, kind, {0: plain[:1], 1: plain[1:2], 2: check[0], 3: check[1]})

    def _street_address(self, value: str, scope: str, kind: str) -> str:
        chosen = self._random(scope, kind, value)
        if len(_WORD.findall(value)) < 2 or not any(map(str.isdigit, value)):
            return self._pattern(value, scope, kind) if any(map(str.isdigit, value)) else f"{chosen.choice(self._last)} Street"
        self._faker.seed_instance(chosen.getrandbits(64))
        return (self._faker.address() if "," in value or "\n" in value else self._faker.street_address()).replace("\n", ", ")

    def _location(self, value: str, scope: str, kind: str) -> str:
        self._faker.seed_instance(self._random(scope, kind, value).getrandbits(64))
        return _cased(self._faker.city(), value)

    def _organization(self, value: str, scope: str, kind: str) -> str:
        chosen = self._random(scope, kind, value)
        tail = _ORGANISATIONS.search(value)
        if tail:
            return f"{chosen.choice(self._last)} {tail[1]}"
        self._faker.seed_instance(chosen.getrandbits(64))
        return self._faker.company()

    def _nrp(self, value: str, scope: str, kind: str) -> str:
        return self._random(scope, kind, value).choice(_PEOPLES)

    def _age(self, value: str, scope: str, kind: str) -> str:
        chosen = self._random(scope, f"{kind} years", "")  # the same step for all ages of a person
        step = chosen.choice((-3, -2, -1, 1, 2, 3))
        new = re.sub(r"\d{1,3}", lambda age: str(min(max(int(age.group()) + step, 1), 89)), value)
        return new if new != value else "<AGE>"

    def _pattern(self, value: str, scope: str, kind: str, fixed: dict[int, str] | None = None) -> str:
        """Each digit another digit, each letter another of its case; `fixed` sets the nth letter or digit."""
        chosen = self._random(scope, kind, value)
        hexadecimal = not re.search(r"[g-z]", value, re.I) and any(map(str.isdigit, value))
        new, count = [], 0
        for character in value:
            if not character.isalnum():
                new.append(character)
                continue
            digit, letter = chosen.choice("0123456789"), chosen.choice("abcdef" if hexadecimal else "abcdefghjkmnpqrstuvwxyz")
            made = digit if character.isdigit() else letter.upper() if character.isupper() else letter
            new.append((fixed or {}).get(count, made))
            count += 1
        return "".join(new)


def luhn(digits: list[int]) -> int:
    """The Luhn sum modulo 10; 0 for a valid card number (ISO/IEC 7812-1, annex B)."""
    doubled = [digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4) for at, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10


def _kept_words(words: Sequence[str]) -> list[bool]:
    """Which words of a name tell nothing of whose it is: titles before it, degrees after it, small particles inside it."""
    last, mixed = len(words) - 1, any(not word.islower() for word in words)
    kept = [0 < at and word.lower() in _AFTER for at, word in enumerate(words)]
    for at, word in enumerate(words[:-1]):
        if word.lower() not in _TITLES:
            break
        kept[at] = True
    for at, word in enumerate(words):
        kept[at] |= at < last and mixed and word.islower() and word in _PARTICLES
    return kept


def _other_digits(text: str, chosen: random.Random) -> str:
    return re.sub(r"\d", lambda _: chosen.choice("0123456789"), text)


def _cased(new: str, old: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.lower() if old.islower() else new


@lru_cache(maxsize=8)
def _known_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if re.fullmatch(r"[^\W\d_'’-]{2,}", name)}))


def _known(provider: Any, *attributes: str) -> tuple[str, ...]:
    """A provider's names, sorted: the first attribute that it has."""
    for attribute in attributes:
        names = getattr(provider, attribute, None)
        if names:
            return _known_names(tuple(names))
    return tuple(_NEUTRAL)
