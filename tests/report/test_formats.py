"""Spelling of figures: three digits, no false certainty, one spelling everywhere."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.formats import (
    FORMATS,
    MISSING,
    count,
    duration,
    join,
    lower,
    number,
    one_in,
    percent,
    percent_upper,
    plain,
    plural,
    show,
    upper,
)

SUPER = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def read(text: str) -> float:
    text = text.replace(",", "").replace("−", "-")
    if "×" in text:
        mantissa, power = text.replace("\u202f", "").split("×10")
        return float(mantissa) * 10 ** int(power.translate(SUPER))
    return float(text)


@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_number_keeps_three_digits(value):
    spelled = read(number(value))
    tolerance = 0.06 if 0 < abs(value) < 0.001 else 0.0051
    assert math.isclose(spelled, value, rel_tol=tolerance, abs_tol=1e-300)


@given(st.floats(1e-9, 1e12))
def test_bounds_are_never_rounded_to_the_wrong_side(value):
    assert read(lower(value)) <= value <= read(upper(value))
    tolerance = 0.11 if value < 0.001 else 0.011
    assert read(upper(value)) <= value * (1 + tolerance)
    assert read(lower(value)) >= value * (1 - tolerance)


@given(st.floats(0.5, 0.9998))
def test_a_certainty_is_never_rounded_down(value):
    assert float(percent_upper(value).removesuffix("\xa0%")) >= 100 * value - 1e-6


@given(st.floats(0, 1))
def test_percent_never_rounds_to_certainty(value):
    text = percent(value)
    assert (text == "100\xa0%") == (100 * value == 100)
    assert (text == "0\xa0%") == (value == 0)


@given(st.floats(1e-12, 0.5))
def test_one_in_never_makes_a_risk_smaller(delta):
    odds = int(re.sub(r"\D", "", one_in(delta).removeprefix("1 in ")))
    assert 1 / odds >= delta * (1 - 1e-9)
    assert 1 / odds <= delta * 1.6


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (number, 999.6, "1,000"),
        (number, 100.0, "100"),
        (number, 0.5, "0.500"),
        (upper, 1.001, "1.01"),
        (upper, 1.005, "1.01"),
        (upper, 8.0, "8.00"),
        (upper, 2.35, "2.35"),
        (upper, 999.6, "1,000"),
        (lower, 0.2139, "0.213"),
        (lower, 0, "0"),
        (number, 0, "0"),
        (number, -1.5, "−1.50"),
        (plain, 8.0, "8"),
        (plain, 0.01, "0.01"),
        (plain, 1e-4, "1\u202f×\u202f10⁻⁴"),
        (count, 7612416, "7,612,416"),
        (percent, 0.99966, "99.97\xa0%"),
        (percent, 0.0002, "0.02\xa0%"),
        (duration, 0.04, "0.0\xa0s"),
        (duration, 3725, "1\xa0h 2\xa0min"),
    ],
)
def test_examples(function, value, text):
    assert function(value) == text


def test_missing_is_said_in_every_format():
    assert {show(None, format) for format in FORMATS} == {MISSING}


def test_sentences():
    assert join(["a", "b", "c"]) == "a, b and c"
    assert join([]) == ""
    assert (plural(1, "record"), plural(2000, "record")) == ("1 record", "2,000 records")
