"""The values of one message of the example data: those of its person, and dates, numbers and strangers of its own."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable

from pipeline.example import _identifiers as identifiers
from pipeline.example._dates import DAYS, FORMS, clock, long_ago, written
from pipeline.example._grammar import Segment
from pipeline.example._people import DOMAINS, IBAN_HOMES, Maker, Person, Values, doctor, span


def message(maker: Maker, made: Person, *, own: bool) -> Values:
    """The values of one message: the person's, and dates, numbers, colleagues and strangers of its own.

    `own` says whether the person writes it; then dates are in the person's style.
    """
    home, draw = made.home, maker.random
    day = datetime.date(2023, 1, 9) + datetime.timedelta(days=draw.randrange(900))
    form = made.style.date if own else draw.choice(FORMS)

    def date(earliest: int, latest: int) -> Callable[[], list[Segment]]:
        return lambda: span(written(day + datetime.timedelta(days=draw.randint(earliest, latest)), home, form), "DATE_TIME")

    def number(*patterns: str) -> Callable[[], list[Segment]]:
        return lambda: span(maker.digits(draw.choice(patterns)), "RECORD_NUMBER")

    def one_of(*texts: str) -> Callable[[], list[Segment]]:
        return lambda: [(maker.digits(draw.choice(texts)), None)]

    agent, nurse = functools.cache(lambda: maker.name(home)), functools.cache(lambda: maker.name(home))
    fresh: Values = {
        "today": date(0, 0),
        "date": date(-12, -2),
        "date_before": date(-50, -14),
        "date_recent": date(-1, -1),
        "date_after": date(2, 35),
        "date_long_ago": lambda: span(long_ago(draw), "DATE_TIME"),
        "dob_other": lambda: span(written(maker.born(), home, "numbers"), "DATE_TIME"),
        "time": lambda: span(clock(draw), "DATE_TIME"),
        "weekday": lambda: span(draw.choice(DAYS[:6]), "DATE_TIME"),
        "order": number("########", "A-#######", "##-######", "@@@-#####"),
        "ticket": number("INC-#####", "#######", "T######", "CS-######"),
        "invoice": number("INV-######", "20##-#####", "R#######"),
        "tracking": number("@@#########", "1Z####@@######", "############"),
        "claim": number("CL-#######", "##/#####/@", "K#######"),
        "case": number("CASE-#####", "@@/##/#####", "######/##"),
        "booking": number("@@#@##", "@@@@%#", "RES-######"),
        "agent": lambda: span(agent().first, "PERSON"),
        "agent_full": lambda: span(agent().full, "PERSON"),
        "agent_other": lambda: span(maker.name(home).full, "PERSON"),
        "nurse_first": lambda: span(nurse().first, "PERSON"),
        "nurse_full": lambda: span(nurse().full, "PERSON"),
        "nurse_other": lambda: span(maker.name(home).full, "PERSON"),
        "doctor_other": lambda: doctor(maker, maker.name(home)),
        "street_other": lambda: span(maker.street(home), "STREET_ADDRESS"),
        "email_other": lambda: span(maker.email(maker.name(home)), "EMAIL_ADDRESS"),
        "phone_other": lambda: span(maker.phone(home), "PHONE_NUMBER"),
        "company_other": lambda: span(maker.company(home), "ORGANIZATION"),
        "company_phone": lambda: span(maker.phone(home), "PHONE_NUMBER"),
        "company_email": lambda: span(
            f"{draw.choice(['care', 'service', 'office', 'desk'])}@{draw.choice(DOMAINS)}", "EMAIL_ADDRESS"
        ),
        "ip": lambda: span(identifiers.ip(draw), "IP_ADDRESS"),
        "mac": lambda: span(identifiers.mac(draw), "MAC_ADDRESS"),
        "url": lambda: span(_url(maker), "URL"),
        "amount": lambda: [
            (
                draw.choice(maker.homes[home]["money"]).format(
                    round(draw.lognormvariate(4.6, 0.9) * maker.homes[home].get("scale", 1) + 4, 2)
                ),
                None,
            )
        ],
        "bp": one_of("1%8/9#", "15%/8#", "14#/%8", "138/84", "16#/10#", "126/78"),
        "pulse": one_of("6#", "7#", "8#", "9#"),
        "weight": one_of("5#", "6#", "7#", "8#", "9#"),
    }
    if home in IBAN_HOMES:
        fresh["iban_other"] = lambda: span(maker.iban(home), "IBAN_CODE")
    return made.values | {key: functools.cache(value) for key, value in fresh.items()}


def _url(maker: Maker) -> str:
    host = maker.random.choice(["www", "help", "my", "portal", "status", "account"]) + "." + maker.random.choice(DOMAINS[:3])
    page = maker.random.choice(["", "/login", "/case/######", "/reset?id=######", "/track/@@#######", "/help/##"])
    return maker.random.choice(["https://", "https://", "http://", ""]) + host + maker.digits(page)
