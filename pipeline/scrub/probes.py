"""Probes: sentences with personal values that we know, planted beside the data to measure what the detector finds.

    write_probes(run / "probes.jsonl", count=280, seed=7, entities=policy.scrub.entities)

The values come from Faker, the sentences from the templates below; nothing comes from the user's data. Recall on probes is
recall on these sentences: other text, with its own abbreviations and mistakes, can be harder.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pipeline.folders import write_text

_LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "en_IN")

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "PERSON": (
        "I spoke with {} about the refund and was told to write again.",
        "Patient {} was seen in clinic after two weeks of headaches.",
        "Please send the papers to {}, who signs for our department.",
        "Hello, this is {} and my heating has been off since the weekend.",
        "The visit was booked under the name of {}.",
        "According to {}, the parcel never left the depot.",
        "Thank you for your patience.\n\nKind regards,\n{}",
        "Could you ask {} to call me back before the meeting?",
        "{} reports less pain since the new tablets.",
        "We discussed the results with {} and the family.",
    ),
    "EMAIL_ADDRESS": (
        "You can reach me at {} at any time.",
        "My e-mail changed, it is now {}.",
        "The receipt went to {} but nothing arrived",
        "Login name: {}\nError: password expired",
        "please cc {}, she handles the invoices",
        "Results were mailed to <{}> as agreed.",
    ),
    "PHONE_NUMBER": (
        "Call me back on {} after five.",
        "My mobile number is {}.",
        "Tel: {}",
        "The pharmacy ({}) did not pick up.",
        "You may text her husband at {} if she does not answer.",
        "phone {} - evenings only please",
    ),
    "STREET_ADDRESS": (
        "The replacement should go to {}.",
        "I have moved, my new address is {}.",
        "Deliver to: {}",
        "She lives alone at {} and needs transport.",
        "The technician went to {}, which is the wrong house.",
        "Home visit planned at {} for wound care.",
    ),
    "CREDIT_CARD": (
        "I paid with card {} and was charged twice.",
        "The card on file is {}.",
        "Please remove {} from my account, that card was stolen.",
        "card no. {} exp 04/27",
    ),
    "IBAN_CODE": (
        "Kindly refund the amount to {}.",
        "My bank account is {}, as on the form.",
        "IBAN: {}",
        "The transfer from {} has not been credited.",
    ),
    "US_SSN": (
        "My social security number is {}.",
        "SSN {} was on the old form, please correct it.",
        "The insurer asked for {} to confirm who I am.",
        "SSN: {}",
    ),
    "IP_ADDRESS": (
        "The login came from {} at night.",
        "Our router shows {} as its address.",
        "Blocked request, client {}, three attempts.",
        "ping to {} times out",
    ),
    "URL": (
        "My profile is at {} if you need the photo.",
        "The form on {} does not load.",
        "See {} for the screenshots.",
        "I uploaded everything to {}",
    ),
    "RECORD_NUMBER": (
        "My account number is {}.",
        "Ticket {} has been open for a month.",
        "MRN: {}",
        "Regarding case number {}, nothing has happened.",
        "Order #{} arrived damaged.",
        "The policy number on my letter is {}.",
        "Claim {} was denied without a reason.",
        "Reference: {}",
    ),
    "DATE_TIME": (
        "She was born on {}.",
        "DOB: {}",
        "The operation took place on {} without complications.",
        "My contract ended on {} and I was still charged.",
        "Last seen {}, next visit in six months.",
    ),
    "ORGANIZATION": (
        "I work for {} and need the invoice in the company's name.",
        "The employer, {}, sent the form.",
        "{} is listed as my insurer, which is wrong.",
        "She was referred by {} last month.",
        "Please bill {} directly.",
    ),
    "AMOUNT": (
        "They charged {} twice for one order.",
        "The court awarded {} in damages.",
        "My pension of {} was cut without a letter.",
        "We agreed on {} before the work began.",
        "Outstanding: {}",
    ),
    "TRAIT": (
        "She is {} and cannot take calls in the morning.",
        "My father was {} before he fell ill.",
        "The witness, {}, was heard in the afternoon.",
        "He works as {} and travels a lot.",
    ),
}


def write_probes(path: Path, count: int, seed: int, *, entities: Collection[str] | None = None) -> int:
    """Write sentences, each with one known value, in gold format; the same seed gives the same bytes.

    Args:
        path: the file to write (JSON Lines, mode 0600).
        count: sentences in all, shared evenly among the entities that can be planted.
        seed: seeds values, templates and order.
        entities: plant only these; those without a template are left out. None: all that have one.

    Returns:
        How many were written: `count`, or 0 where none of the entities can be planted.
    """
    kinds = [entity for entity in _TEMPLATES if entities is None or entity in entities]
    rng = random.Random(seed)
    sources = fakers(rng)
    lines = [_probe(kinds[index % len(kinds)], rng, sources) for index in range(count if kinds else 0)]
    rng.shuffle(lines)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len(lines)


def fakers(rng: random.Random) -> list[Any]:
    """Seeded sources of values, one for each locale."""
    from faker import Faker

    made = [Faker(locale) for locale in _LOCALES]
    for faker in made:
        faker.seed_instance(rng.getrandbits(64))
    return made


def value(entity: str, rng: random.Random, sources: list[Any]) -> str | None:
    """A fresh value of an entity on one line; None where no values of it are made."""
    make = _VALUES.get(entity)
    return " ".join(make(rng, sources).split()) if make else None


def _probe(entity: str, rng: random.Random, fakers: list[Any]) -> dict[str, Any]:
    made = str(value(entity, rng, fakers))
    template = rng.choice(_TEMPLATES[entity])
    start = template.index("{}")
    span = {"start": start, "end": start + len(made), "label": entity}
    return {"text": template.replace("{}", made), "spans": [span]}


def _person(rng: random.Random, fakers: list[Any]) -> str:
    faker = rng.choice(fakers)
    return rng.choice((faker.name, lambda: f"{faker.first_name()} {faker.last_name()}"))()


def _email(rng: random.Random, fakers: list[Any]) -> str:
    return rng.choice(fakers).email()


def _phone(rng: random.Random, fakers: list[Any]) -> str:
    us, uk = fakers[:2]
    area, local, line = rng.randint(201, 989), rng.randint(200, 999), rng.randint(0, 9999)
    spellings = (
        lambda: us.phone_number(),
        lambda: uk.phone_number(),
        lambda: rng.choice(fakers).phone_number(),
        lambda: f"({area}) {local}-{line:04d}",
        lambda: f"{area}.{local}.{line:04d}",
        lambda: f"+1 {area} {local} {line:04d}",
        lambda: f"{area}{local}{line:04d}",
        lambda: f"+44 7{rng.randint(100, 999)} {rng.randint(0, 999999):06d}",
    )
    return rng.choice(spellings)()


def _address(rng: random.Random, fakers: list[Any]) -> str:
    us, uk = fakers[:2]
    spellings = (
        lambda: us.street_address(),
        lambda: us.address().replace("\n", ", "),
        lambda: f"{us.building_number()} {us.street_name()}, {us.city()}, {us.state_abbr()} {us.zipcode()}",
        lambda: f"{rng.randint(1, 180)} {uk.street_name().title()}, {uk.city()}, {uk.postcode()}",
    )
    return rng.choice(spellings)()


def _card(rng: random.Random, fakers: list[Any]) -> str:
    number = fakers[0].credit_card_number(card_type=rng.choice(("visa16", "mastercard", "amex", "discover")))
    blocks = (4, 6, 5) if len(number) == 15 else (4, 4, 4, 4)
    cuts = itertools.accumulate(blocks, initial=0)
    return rng.choice(("", " ", "-")).join(number[start:end] for start, end in itertools.pairwise(cuts))


def _iban(rng: random.Random, fakers: list[Any]) -> str:
    iban = rng.choice(fakers[:6]).iban()
    return iban if rng.random() < 0.5 else " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))


def _ssn(rng: random.Random, fakers: list[Any]) -> str:
    return fakers[0].ssn()


def _ip(rng: random.Random, fakers: list[Any]) -> str:
    return fakers[0].ipv6() if rng.random() < 0.3 else fakers[0].ipv4()


def _url(rng: random.Random, fakers: list[Any]) -> str:
    faker = fakers[0]
    spellings = (
        lambda: faker.url() + faker.user_name(),
        lambda: f"www.{faker.domain_name()}/{faker.user_name()}",
        lambda: f"{faker.user_name()}.{faker.domain_name()}",
        lambda: f"https://{faker.domain_name()}/u/{faker.user_name()}?id={rng.randint(100, 99999)}",
    )
    return rng.choice(spellings)()


def _record(rng: random.Random, fakers: list[Any]) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(5, 10)))
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(2, 3)))
    year = 2000 + rng.randint(10, 26)
    return rng.choice((digits, f"{letters}-{digits}", f"{letters}{digits}", f"{year}-{digits}", f"{digits[:3]}-{digits[3:]}"))


def _date(rng: random.Random, fakers: list[Any]) -> str:
    day = fakers[0].date_of_birth(minimum_age=1, maximum_age=95)
    spellings = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%y", "%d %B %Y", "%B %d, %Y", "%d.%m.%Y", "%b %d, %Y", "%A, %d %B %Y")
    return day.strftime(rng.choice(spellings))


def _amount(rng: random.Random, fakers: list[Any]) -> str:
    number, code = f"{rng.randint(10, 99_999):,}", rng.choice(("EUR", "USD", "GBP", "PLN", "CHF"))
    unit = rng.choice(("euros", "dollars", "pounds", "Swiss francs", "roubles"))
    return rng.choice((f"{code} {number}", f"{number} {unit}", f"{rng.choice('€$£')}{number}.{rng.randint(0, 99):02d}"))


def _trait(rng: random.Random, fakers: list[Any]) -> str:
    work = rng.choice(
        "nurse/bus driver/lawyer/carpenter/history teacher/soldier/midwife/translator/plumber/tailor/miner/welder/notary/chef/"
        "paramedic/journalist/sailor/florist/pianist/physicist/priest/dentist/postman/police officer/shop assistant".split("/")
    )
    return f"a {rng.choice(('', 'retired ', 'former ', 'self-employed ', 'disabled ', 'practising '))}{work}"


def _organisation(rng: random.Random, fakers: list[Any]) -> str:
    us = fakers[0]
    spellings = (
        lambda: us.company(),
        lambda: f"{us.last_name()} {rng.choice(('Medical Center', 'Hospital', 'Insurance', 'Bank', 'Clinic'))}",
        lambda: f"{us.city()} {rng.choice(('General Hospital', 'Credit Union', 'University', 'Health Trust'))}",
    )
    return rng.choice(spellings)()


_VALUES: dict[str, Callable[[random.Random, list[Any]], str]] = {
    "PERSON": _person,
    "EMAIL_ADDRESS": _email,
    "PHONE_NUMBER": _phone,
    "STREET_ADDRESS": _address,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "US_SSN": _ssn,
    "IP_ADDRESS": _ip,
    "URL": _url,
    "RECORD_NUMBER": _record,
    "DATE_TIME": _date,
    "ORGANIZATION": _organisation,
    "AMOUNT": _amount,
    "TRAIT": _trait,
}
