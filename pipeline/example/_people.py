"""Made-up people for the example data: who they are, how they write, and the personal values in their messages.

A value is a list of segments, so that the grammar knows which characters are a gold span. Nothing belongs to anybody: names
come from Faker, mail and web addresses lie in example domains, numbers are drawn (and carry valid check digits).
"""

from __future__ import annotations

import datetime
import random
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from faker import Faker

from pipeline.example import _identifiers as identifiers
from pipeline.example._dates import FORMS, written
from pipeline.example._grammar import Segment

Values = dict[str, Callable[[], list[Segment]]]

_RELATIONS = {"female": ("wife", "mother", "sister"), "male": ("husband", "father", "brother")}
_SAINTS = ("Mary", "Luke", "Vincent", "Anne", "Brendan", "Columba", "George", "Helen")
DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "post.example.org", "inbox.example.net")
IBAN_HOMES = ("en_GB", "en_IE", "de_DE", "fr_FR", "es_ES", "it_IT")


class Name(NamedTuple):
    """A person's name and the sex it was made for."""

    first: str
    last: str
    sex: str

    @property
    def full(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"


class Maker:
    """Draws everything that is random: one seed, one stream, so the same seed makes the same people and messages."""

    def __init__(self, homes: Path, seed: int):
        self.random = random.Random(f"hushtune example {seed}")
        self.homes: dict[str, dict[str, Any]] = yaml.safe_load(homes.read_text(encoding="utf-8"))
        self._fakers = {locale: Faker(locale) for locale in self.homes}
        for locale, faker in self._fakers.items():
            faker.seed_instance(f"{seed} {locale}")

    def home(self) -> str:
        """Where somebody lives: a locale."""
        return self.random.choices(list(self.homes), [home["weight"] for home in self.homes.values()])[0]

    def name(self, home: str, *, last: str | None = None, sex: str | None = None) -> Name:
        """A name as it may occur at `home`; in English-speaking places one of four is from elsewhere."""
        abroad = home.startswith("en") and self.random.random() < 0.25
        locale = self.random.choice(list(self.homes)) if abroad else home
        sex = sex or self.random.choice(["female", "male"])
        first = getattr(self._fakers[locale], f"first_name_{sex}")()
        name = Name(first, last or self._fakers[locale].last_name(), sex)
        return name if first != name.last else self.name(home, last=last, sex=sex)

    def surname(self, home: str) -> str:
        """A surname of `home`, for streets, practices and firms."""
        return self._fakers[home].last_name()

    def company(self, home: str) -> str:
        """An employer."""
        return self._fakers[home].company()

    def iban(self, home: str) -> str:
        """An account number of `home` with valid check digits; half are written in groups of four."""
        iban = self._fakers[home].iban()
        return " ".join(re.findall(".{1,4}", iban)) if self.random.random() < 0.5 else iban

    def digits(self, pattern: str) -> str:
        """A pattern with # replaced by digits, % by digits from 2 to 9, and @ by capital letters."""
        kinds = {"#": "0123456789", "%": "23456789", "@": "ABCDEFGHJKLMNPRSTUVWXYZ"}
        return re.sub("[#%@]", lambda match: self.random.choice(kinds[match[0]]), pattern)

    def chosen(self, home: str, key: str, **slots: str) -> str:
        """One of a home's patterns, filled in."""
        pattern = (
            self.random.choice(self.homes[home][key]) if isinstance(self.homes[home][key], list) else self.homes[home][key]
        )
        slots = {"last": self.surname(home), "saint": self.random.choice(_SAINTS), **slots}
        return self.digits(pattern.format(**slots))

    def street(self, home: str) -> str:
        """House and street."""
        place = self.homes[home]
        name = self.chosen(home, "streets") if place["streets"] else self._fakers[home].street_name()
        return self.chosen(home, "street", name=name, number=str(self.random.randint(1, 99)))

    def phone(self, home: str) -> str:
        """A telephone number."""
        return self.chosen(home, "phones", area=self.random.choice(self.homes[home].get("areas", [""])))

    def address(self, home: str) -> tuple[str, str, str]:
        """Street, city, and the whole address in one line."""
        city, _, code = self.random.choice(self.homes[home]["cities"]).partition(" | ")
        street = self.street(home)
        return street, city, self.chosen(home, "full", street=street, city=city, zip=self.digits(code))

    def born(self, youngest: int = 24, oldest: int = 79) -> datetime.date:
        """A date of birth."""
        return datetime.date(2024, 1, 1) - datetime.timedelta(days=self.random.randint(youngest * 366, oldest * 365))

    def email(self, name: Name) -> str:
        """An address in a domain that is kept for examples."""
        first, last = plain(name.first), plain(name.last)
        number = self.random.randint(1, 99)
        forms = (f"{first}.{last}", f"{first[0]}{last}", f"{first}{number}", f"{last}.{first}", f"{first}_{last}{number}")
        return f"{self.random.choice(forms)}@{self.random.choice(DOMAINS)}"


@dataclass(slots=True)
class Style:
    """How somebody writes."""

    contracts: bool
    lower: bool
    typos: float
    date: str


@dataclass(slots=True)
class Person:
    """Somebody with a name, an address, numbers, a style and topics that stay the same over all of their messages."""

    unit: str
    home: str
    name: Name
    style: Style
    topics: dict[str, list[str]]
    values: Values = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


def plain(name: str) -> str:
    """A name in lower-case ASCII letters, as in a mail address.

    >>> plain("Léa d'Été")
    'leadete'
    """
    spelled = name.replace("ß", "ss").replace("ø", "o")
    letters = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z]", "", letters)


def span(text: str, label: str) -> list[Segment]:
    """A value that is one gold span."""
    return [(text, label)]


def person(maker: Maker, number: int, topics: dict[str, list[str]], sex: str | None) -> Person:
    """The person with this number, who writes about these topics (a list of them for each kind of message)."""
    home, draw = maker.home(), maker.random
    typos = draw.choice([0.02, 0.03, 0.05]) if draw.random() < 0.25 else 0.0
    style = Style(draw.random() < 0.6, draw.random() < 0.05, typos, draw.choice(FORMS))
    made = Person(f"p{number:04d}", home, maker.name(home, sex=sex), style, topics)
    made.values = _identity(maker, made) | _numbers(maker, home)
    made.values |= _around(maker, made)
    return made


def _identity(maker: Maker, made: Person) -> Values:
    name, home = made.name, made.home
    street, city, address = maker.address(home)
    female = name.sex == "female"
    born = maker.born(24, 42) if "pregnancy" in made.topics.get("clinical", ()) else maker.born()
    texts = {"age": str(2024 - born.year), "man": "woman" if female else "man", "he": "she" if female else "he"}
    texts |= {"him": "her" if female else "him", "his": "her" if female else "his"}
    labelled = {
        "full": (name.full, "PERSON"),
        "first": (name.first, "PERSON"),
        "last": (name.last, "PERSON"),
        "initial_last": (f"{name.first[0]}. {name.last}", "PERSON"),
        "email": (maker.email(name), "EMAIL_ADDRESS"),
        "phone": (maker.phone(home), "PHONE_NUMBER"),
        "website": (f"www.{plain(name.last)}-{plain(name.first)}.example.{maker.random.choice(['com', 'org'])}", "URL"),
        "street": (street, "STREET_ADDRESS"),
        "city": (city, "LOCATION"),
        "address": (address, "STREET_ADDRESS"),
        "nationality": (maker.homes[home]["nationality"], "NRP"),
        "dob": (written(born, home, maker.random.choice(["long", "numbers", "numbers"])), "DATE_TIME"),
    }
    values: Values = {key: same([(text, None)]) for key, text in texts.items()}
    values |= {key: same([value]) for key, value in labelled.items()}
    title = maker.random.choice(["Mrs", "Ms"] if female else ["Mr", "Mr", "Dr"])
    stop = "." if home == "en_US" else ""
    return values | {"title_last": same([(f"{title}{stop} ", None), (name.last, "PERSON")])}


def _numbers(maker: Maker, home: str) -> Values:
    draw = maker.random
    record = maker.digits(draw.choice(["#######", "MR-######", "@##-#####", "%###-###"]))
    labelled = {
        "account": (maker.digits(draw.choice(["########", "C-######", "##-####-##", "@@######"])), "RECORD_NUMBER"),
        "policy": (maker.digits(draw.choice(["@@/####/##", "POL-#######", "@##########"])), "RECORD_NUMBER"),
        "username": (maker.digits("u######"), "RECORD_NUMBER"),
        "serial": (maker.digits(draw.choice(["SN@##@@####", "@@@#########", "##@@-#####"])), "RECORD_NUMBER"),
        "meter": (maker.digits(draw.choice(["E%#@######", "M########"])), "RECORD_NUMBER"),
        "record_number": (record, "RECORD_NUMBER"),
        "card": (identifiers.card(draw), "CREDIT_CARD"),
    }
    if home in IBAN_HOMES:
        labelled["iban"] = (maker.iban(home), "IBAN_CODE")
    if home == "en_US":
        labelled["ssn"] = (identifiers.ssn(draw), "US_SSN")
        labelled["passport"] = (maker.digits("@########"), "US_PASSPORT")
        labelled["bank_account"] = (maker.digits("%#########"), "US_BANK_NUMBER")
    if home == "en_GB":
        labelled["nhs"] = (identifiers.nhs(draw), "UK_NHS")
        labelled["nino"] = (identifiers.nino(draw), "UK_NINO")
    values: Values = {key: same([value]) for key, value in labelled.items()}
    return values | {"mrn": same([("MRN ", None), (record, "RECORD_NUMBER")])}


def _around(maker: Maker, made: Person) -> Values:
    """The people and places around a person: family, doctor, clinic, work."""
    home, draw = made.home, maker.random
    sex = draw.choice(["female", "male"])
    spouse = made.name.sex == "female"
    relations = [r for r in _RELATIONS[sex] if r not in (("wife",) if spouse else ("husband",))]
    relative = maker.name(home, last=made.name.last if draw.random() < 0.7 else None, sex=sex)
    physician = maker.name(home)
    city = made.values["city"]()[0][0]
    street = maker.chosen(home, "streets") if maker.homes[home]["streets"] else maker.surname(home)
    places = {key: maker.chosen(home, key + "s", city=city, name=street) for key in ("hospital", "clinic")}
    places["pharmacy"] = maker.chosen(home, "pharmacies", city=city, name=street)
    places["insurer"] = maker.chosen(home, "insurers")
    places["employer"] = maker.company(home)
    values: Values = {key: same(span(text, "ORGANIZATION")) for key, text in places.items()}
    values |= {
        "relation": same([(draw.choice(relations), None)]),
        "relative": same(span(relative.full, "PERSON")),
        "relative_first": same(span(relative.first, "PERSON")),
        "doctor": same(doctor(maker, physician)),
    }
    if home == "en_US":
        values["dea"] = same(span(identifiers.dea(draw, plain(physician.last) or "x"), "MEDICAL_LICENSE"))
    return values


def same(segments: list[Segment]) -> Callable[[], list[Segment]]:
    """A value that does not change."""
    return lambda: segments


def doctor(maker: Maker, name: Name) -> list[Segment]:
    """A doctor's name with the title, which is not part of the span."""
    return [
        ("Dr. " if maker.random.random() < 0.3 else "Dr ", None),
        (name.last if maker.random.random() < 0.6 else name.full, "PERSON"),
    ]
