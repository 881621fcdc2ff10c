r"""How a figure of the report is written: a few pure functions from a number to short, typographic English text.

    >>> number(2.3456), count(12345), percent(0.9342), scientific(1.2e-5), one_in(1.2e-5), duration(133)
    ('2.35', '12,345', '93.4\xa0%', '1.2\u202f×\u202f10⁻⁵', '1 in 83,000', '2\xa0min 13\xa0s')

The page, the pictures, the sentences and the model card all use these, so that one figure has one spelling everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

MISSING = "not measured"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: float) -> str:
    """A whole number with its thousands set apart."""
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Three significant digits, trailing zeros kept so that columns align; very small ones in powers of ten."""
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        return scientific(value)
    if abs(value) >= 999.5:
        return count(value).replace("-", "−")
    digits = f"{value:#.3g}"
    if "e" in digits:  # 999.6 would become 1.00e+03
        return count(value)
    return digits.rstrip(".").replace("-", "−")


def upper(value: float) -> str:
    """A number that is claimed as an upper bound: three significant digits, rounded up.

    >>> upper(7.983), upper(1.001), upper(8.0)
    ('7.99', '1.01', '8.00')
    """
    return _bound(value, ROUND_CEILING)


def lower(value: float) -> str:
    """A number that is claimed as a lower bound: three significant digits, rounded down."""
    return _bound(value, ROUND_FLOOR)


def _bound(value: float, rounding: str) -> str:
    exact = Decimal(repr(float(value)))  # the shortest decimal that is this float: 2.35 stays 2.35
    if exact == 0:
        return "0"
    digits = 1 if abs(exact) < Decimal("0.001") else 2  # as many as number() shows
    return number(float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - digits), rounding=rounding)))


def plain(value: float) -> str:
    """A number as a person set it: no trailing zeros (limits, settings)."""
    if value != 0 and abs(value) < 0.001:
        return scientific(value)
    return f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.6g}".replace("-", "−")


def scientific(value: float) -> str:
    """Two significant digits times a power of ten."""
    mantissa, exponent = f"{value:.1e}".split("e")
    digits = mantissa.replace("-", "−").removesuffix(".0")
    return f"{digits}\u202f×\u202f10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def percent(value: float) -> str:
    """A share as a percentage; never rounds up to 100 or down to 0 what is not."""
    share = 100 * value
    if share in (0, 100):
        text = f"{share:.0f}"
    elif share > 99.9:
        text = f"{share:.2f}" if share < 99.99 else "> 99.99"
    elif abs(share) < 0.05:
        text = f"{share:.2f}" if abs(share) >= 0.01 else "< 0.01" if share > 0 else "> -0.01"
    else:
        text = f"{share:.1f}"
    return f"{text}\xa0%".replace("-", "−")


def percent_upper(value: float) -> str:
    """A share that is claimed as an upper bound, as a percentage rounded up."""
    unit = 1_000 if value <= 0.999 else 10_000
    raised = math.ceil(value * unit - 1e-9) / unit
    return percent(raised if raised < 1 else value)


def share(value: float) -> str:
    """A share that a person set, as a percentage without trailing zeros."""
    return f"{100 * value:.6g}\xa0%"


def one_in(value: float) -> str:
    """A small probability as odds: 1 in N, N to two significant digits, rounded down (the probability up)."""
    odds = int(1 / value)
    unit = 10 ** max(0, len(str(odds)) - 2)
    return f"1 in {odds // unit * unit:,}"


def duration(seconds: float) -> str:
    """A span of time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f}\xa0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\xa0min {rest}\xa0s"
    return f"{minutes // 60}\xa0h {minutes % 60}\xa0min"


def digest(value: str) -> str:
    """The beginning of a SHA-256, enough to tell two apart."""
    return str(value)[:12]


def text(value: Any) -> str:
    """Anything else, as it stands."""
    return str(value)


FORMATS: dict[str, Callable[[Any], str]] = {
    function.__name__: function
    for function in (
        count,
        number,
        upper,
        lower,
        plain,
        scientific,
        percent,
        percent_upper,
        share,
        one_in,
        duration,
        digest,
        text,
    )
}


def show(value: Any, format: str = "number") -> str:
    """`value` in the format of that name; `MISSING` where there is no value."""
    return MISSING if value is None else FORMATS[format](value)


def join(names: list[str]) -> str:
    """Names in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def plural(amount: int, noun: str, many: str | None = None) -> str:
    """A counted noun: 1 record, 2,000 records."""
    return f"{count(amount)} {noun if amount == 1 else many or noun + 's'}"
