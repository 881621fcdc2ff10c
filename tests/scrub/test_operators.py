"""What replaces a value: it carries nothing, or agrees by key and person; surrogates keep form, intervals and check digits."""

from __future__ import annotations

import itertools
import re
import stat
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import IntegrityError, PolicyError
from pipeline.scrub import Span, _dates
from pipeline.scrub.keys import key_file, read_key
from pipeline.scrub.operators import KEYED, OPERATORS, decrypted, operator, replace
from pipeline.scrub.surrogates import Surrogates, luhn

KEY = bytes(range(32))
OTHER = bytes(32)
TEXT = "Ada Lovelace, 🎉 ada@example.org"
FOUND = [Span(0, 12, "PERSON", 0.85), Span(16, 31, "EMAIL_ADDRESS", 1.0)]


def made(name: str, key: bytes = KEY, **changes: str):
    return operator(name, key=key, **changes)


def test_operators_that_carry_nothing() -> None:
    assert replace(TEXT, FOUND, made("placeholder"), "u")[0] == "<PERSON>, 🎉 <EMAIL_ADDRESS>"
    assert replace(TEXT, FOUND, made("redact"), "u")[0] == ", 🎉 "
    assert replace(TEXT, FOUND, made("mask"), "u")[0] == "*** ********, 🎉 ***************"
    assert replace(TEXT, [], made("placeholder"), "u") == (TEXT, [])


@given(
    st.text(alphabet="abc1 \n🎉", max_size=40),
    st.lists(st.integers(0, 40), max_size=8, unique=True),
    st.sampled_from(OPERATORS),
)
def test_what_stands_outside_the_spans_stays_and_what_stands_inside_goes(text: str, cuts: list[int], name: str) -> None:
    cuts = sorted(min(cut, len(text)) for cut in cuts)
    found = [Span(start, end, "X", 1.0) for start, end in zip(cuts[::2], cuts[1::2], strict=False) if start < end]
    new, places = replace(text, found, made(name), "u")
    ends = [0, *itertools.chain.from_iterable((span.start, span.end) for span in found), len(text)]
    kept = [text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]
    ends = [0, *itertools.chain.from_iterable(places), len(new)]
    assert [new[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)] == kept
    assert len(places) == len(found)


@pytest.mark.parametrize("name", KEYED)
def test_equal_values_agree_within_a_person_and_under_one_key_only(name: str) -> None:
    operate = made(name)
    first = operate("Ada Lovelace", "PERSON", "u1")
    assert "Ada" not in first
    assert made(name)("ada  LOVELACE" if name == "hash" else "Ada Lovelace", "PERSON", "u1") == first
    others = [made(name, OTHER)("Ada Lovelace", "PERSON", "u1"), operate("Ada Lovelace", "PERSON", "u2")]
    assert first not in others
    everywhere = made(name, consistency="corpus")
    assert everywhere("Ada Lovelace", "PERSON", "u1") == everywhere("Ada Lovelace", "PERSON", "u2")


@pytest.mark.parametrize("name", KEYED)
def test_without_a_key_there_is_no_keyed_operator(name: str) -> None:
    with pytest.raises(PolicyError, match="secret key"):
        operator(name)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_ciphertexts_turn_back_with_key_and_person_only(value: str) -> None:
    token = made("encrypt")(value, "PERSON", "u1")
    assert decrypted(KEY, token, "u1") == value
    for key, unit in ((OTHER, "u1"), (KEY, "u2")):
        with pytest.raises(IntegrityError):
            decrypted(key, token, unit)


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_file(tmp_path) == path
    assert len(read_key(path)) == 32
    assert [one.name for one in path.parent.iterdir()] == ["scrub.key"]
    path.chmod(0o644)
    with pytest.raises(IntegrityError, match="read by others"):
        read_key(path)
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        read_key(path)


def test_a_surrogate_name_agrees_word_for_word_and_keeps_title_case_and_possessive() -> None:
    operate = made("surrogate")
    whole = operate("Mr Tadeusz Okrzejski", "PERSON", "u1")
    assert re.fullmatch(r"Mr [A-Z]\w+ [A-Z]\w+", whole)
    surname = whole.split()[-1]
    assert operate("OKRZEJSKI", "PERSON", "u1") == surname.upper()
    assert operate("Okrzejski's", "PERSON", "u1") == f"{surname}'s"


@pytest.mark.parametrize(
    ("value", "stays"),
    [
        ("Ben Carter", ""),
        ("Thuy Le", ""),
        ("Van Al Judge", ""),
        ("ben carter", ""),
        ("mr ben carter", "mr"),
        ("Dr Den Otter", "Dr"),
        ("Judge Sandra Lord", "Judge"),
        ("Mr and Mrs Okrzejski", "Mr and Mrs"),
        ("Jan van der Berg Jr", "van der Jr"),
        ("kowalczyk1985", ""),
    ],
)
def test_of_a_name_only_titles_and_particles_stay(value: str, stays: str) -> None:
    """Ben, Le and Judge are particles and titles only where they stand like such."""
    for unit in "abcdef":
        new = made("surrogate")(value, "PERSON", unit)
        assert [word for word in re.findall(r"[^\W\d]+|\d+", value) if re.search(rf"\b{word}\b", new)] == stays.split()


def test_numbers_for_months_are_read_as_the_locale_reads_them() -> None:
    operate = made("surrogate", locale="en_GB")
    moved = [datetime.strptime(operate(day, "DATE_TIME", "u"), "%d/%m/%Y") for day in ("12/04/2020", "13/04/2020")]
    assert moved[1] - moved[0] == timedelta(days=1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT10:00:00\.123Z", operate("2020-04-13T10:00:00.123Z", "DATE_TIME", "u"))


FORMS = [
    ("(212) 867-5309", "PHONE_NUMBER", r"\(\d{3}\) 555-01\d\d"),
    ("078-05-1121", "US_SSN", r"9\d\d-\d\d-\d{4}"),
    ("192.168.14.3", "IP_ADDRESS", r"(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d+"),
    ("fe80::1ff:fe23:4567:890a", "IP_ADDRESS", r"2001:db8:.*"),
    ("ada@lovelace.uk", "EMAIL_ADDRESS", r"[a-z._]+\d\d@example\.(?:com|org|net)"),
    ("https://lovelace.uk/ada", "URL", r"https://example\.(?:com|org|net)/[0-9a-f]{8}"),
    ("AB-2231/07", "RECORD_NUMBER", r"[A-Z]{2}-\d{4}/\d\d"),
    ("00:1a:2b:3c:4d:5e", "MAC_ADDRESS", r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"),
    ("hunter2", "SECRET", "<SECRET>"),
    ("aged 93", "AGE", r"aged 8\d"),
]


@pytest.mark.parametrize(("value", "entity", "form"), FORMS)
def test_a_surrogate_has_the_form_of_its_value_in_a_range_that_is_nobodys(value: str, entity: str, form: str) -> None:
    for unit in "abcdefgh":
        new = made("surrogate")(value, entity, unit)
        assert re.fullmatch(form, new)
        assert new != value


def test_surrogates_of_cards_and_accounts_have_right_check_digits() -> None:
    for unit in map(str, range(30)):
        card = made("surrogate")("4111 1111 1111 1111", "CREDIT_CARD", unit)
        assert luhn([int(digit) for digit in card if digit.isdigit()]) == 0
        iban = made("surrogate")("DE89 3704 0044 0532 0130 00", "IBAN_CODE", unit).replace(" ", "")
        assert iban.startswith("DE")
        assert int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1  # ISO 13616


@given(st.dates(date(1900, 1, 1), date(2090, 1, 1)), st.dates(date(1900, 1, 1), date(2090, 1, 1)), st.text(max_size=4))
def test_dates_of_a_person_move_together_and_keep_their_form(first: date, second: date, unit: str) -> None:
    operate = made("surrogate")
    for form in ("%Y-%m-%d", "%m/%d/%Y", "%d %B %Y", "%d.%m.%Y", "%A, %d %B %Y"):
        moved = [operate(day.strftime(form), "DATE_TIME", unit) for day in (first, second)]
        days = [datetime.strptime(text, form).date() for text in moved]
        assert days[1] - days[0] == second - first
        assert days[0] - first == operate.offset(unit)  # type: ignore[attr-defined]
        if "%A" in form:
            assert all(text.startswith(day.strftime("%A")) for text, day in zip(moved, days, strict=True))


def test_what_is_no_date_with_a_year_is_not_kept() -> None:
    for text in ("yesterday", "the 3rd", "March", "99/99/2004", "1998 or so, with Ann"):
        assert made("surrogate")(text, "DATE_TIME", "u") == "<DATE_TIME>"
    assert _dates.shifted("in 1998", timedelta(weeks=53)) == "in 1999"


def test_a_locale_without_surrogates_is_refused() -> None:
    with pytest.raises(PolicyError, match="xx_XX"):
        Surrogates(KEY, locale="xx_XX", everywhere=False)
    assert made("surrogate", locale="de_DE")("Ada Lovelace", "PERSON", "u")


@given(st.text(max_size=30), st.sampled_from([entity for _, entity, _ in FORMS] + ["PERSON", "LOCATION", "DATE_TIME", "X"]))
def test_a_surrogate_is_never_its_value(value: str, entity: str) -> None:
    assert made("surrogate")(value, entity, "u").casefold() != value.casefold() or not value


@pytest.mark.parametrize("name", ["hash", "surrogate"])
@pytest.mark.parametrize("hidden", ["M&uuml;ller", "Mu\u0308ller", "Mü\u200bller", "MÜLLER"])
def test_a_hidden_spelling_of_a_value_gets_the_same_replacement(name: str, hidden: str) -> None:
    operate = made(name)
    assert operate(hidden, "PERSON", "u").casefold() == operate("Müller", "PERSON", "u").casefold()
    assert operate(hidden, "PERSON", "u").casefold() != operate("Miller", "PERSON", "u").casefold()


def test_a_surrogate_is_never_the_value_in_another_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogates = Surrogates(KEY, locale="en_US", everywhere=True)
    monkeypatch.setattr(surrogates, "_person", lambda value, scope, kind: "ＳＭＩＴＨ" if kind.endswith(" 0") else "Rowe")
    assert surrogates("Smith", "PERSON", "u") == "Rowe"
