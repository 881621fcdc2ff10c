"""Numbers that name people and things, drawn at random with the check digits that the real ones carry.

All functions take the random generator to draw from and return the number as people write it.
"""

from __future__ import annotations

import random


def luhn(digits: str) -> str:
    """Digits with the check digit of ISO/IEC 7812 appended.

    >>> luhn("411111111111111")
    '4111111111111111'
    """
    total = 0
    for at, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if at % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def card(draw: random.Random) -> str:
    """A payment card number of 15 or 16 digits, valid by Luhn."""
    prefix, length = draw.choice([("4", 16), ("4", 16), (f"5{draw.randint(1, 5)}", 16), (draw.choice(["34", "37"]), 15)])
    number = luhn(prefix + _digits(draw, length - 1 - len(prefix)))
    parts = (4, 6, 5) if length == 15 else (4, 4, 4, 4)
    return _grouped(number, parts, draw.choice([" ", " ", "-", ""]))


def nhs(draw: random.Random) -> str:
    """A British NHS number: nine digits and one check digit modulo 11."""
    while True:
        digits = str(draw.randint(4, 7)) + _digits(draw, 8)
        if (check := nhs_check(digits)) is not None:
            return _grouped(f"{digits}{check}", (3, 3, 4), draw.choice([" ", " ", "", "-"]))


def nhs_check(digits: str) -> int | None:
    """The check digit of nine digits, or None where there is no valid one.

    >>> nhs_check("943476591")
    9
    """
    check = 11 - sum(int(digit) * (10 - at) for at, digit in enumerate(digits)) % 11
    return None if check == 10 else check % 11


def nino(draw: random.Random) -> str:
    """A British National Insurance number, with a prefix that is in use."""
    prefix = draw.choice(["AB", "CE", "HJ", "JK", "LM", "NP", "PR", "RS", "SK", "WL", "YZ"])
    text = f"{prefix}{_digits(draw, 6)}{draw.choice('ABCD')}"
    return _grouped(text, (2, 2, 2, 2, 1), draw.choice([" ", ""]))


def ssn(draw: random.Random) -> str:
    """A United States social security number outside the ranges that are never given out."""
    area = draw.choice([draw.randint(1, 665), draw.randint(667, 899)])
    return f"{area:03d}-{draw.randint(1, 99):02d}-{draw.randint(1, 9999):04d}"


def dea(draw: random.Random, last: str) -> str:
    """A United States prescriber's number: two letters, six digits, and their check digit."""
    digits = [draw.randrange(10) for _ in range(6)]
    check = (digits[0] + digits[2] + digits[4] + 2 * (digits[1] + digits[3] + digits[5])) % 10
    return f"{draw.choice('ABFM')}{last[0].upper()}{''.join(map(str, digits))}{check}"


def ip(draw: random.Random) -> str:
    """An address in a private or documentation network (RFC 1918, 5737, 3849)."""
    if draw.random() < 0.1:
        return "2001:db8:" + ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(6))
    network = draw.choice(["192.168.{}", "10.{}.{}", "172.{}.{}", "203.0.113", "198.51.100"])
    parts = network.format(*(draw.randint(16, 31), draw.randint(0, 254)))
    return f"{parts}.{draw.randint(1, 254)}"


def mac(draw: random.Random) -> str:
    """A locally administered network card address."""
    separator = draw.choice([":", ":", "-"])
    pairs = [draw.choice(["02", "06", "0a", "0e"]), *(f"{draw.randrange(256):02x}" for _ in range(5))]
    return separator.join(pair.upper() if separator == "-" else pair for pair in pairs)


def _digits(draw: random.Random, count: int) -> str:
    return "".join(str(draw.randrange(10)) for _ in range(count))


def _grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return separator.join(parts)
