from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from collections import Counter, defaultdict

import faker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import example
from pipeline.corpus import load_records, read
from pipeline.example import _identifiers as identifiers
from pipeline.example._grammar import Choice, Grammar, Scope, Slot, finished, parsed
from pipeline.example._messages import message
from pipeline.example._people import Maker, person
from pipeline.policy import load

LABELS = {
    "PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME", "EMAIL_ADDRESS", "PHONE_NUMBER", "URL", "IP_ADDRESS",
    "MAC_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "US_PASSPORT", "US_BANK_NUMBER", "UK_NHS", "UK_NINO",
    "MEDICAL_LICENSE", "RECORD_NUMBER", "STREET_ADDRESS",
}  # fmt: skip
MADE_WITH = "40.54.0"  # the Faker of the bundled file


@pytest.fixture(scope="module")
def bundled() -> list[dict]:
    with gzip.open(example.path(), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def values(records, label: str) -> set[str]:
    return {r["text"][s["start"] : s["end"]] for r in records for s in r["spans"] if s["label"] == label}


# ---------------------------------------------------------------------------------------------------- the bundled file


def test_size_counts_and_lengths(bundled):
    assert example.path().stat().st_size <= 2 * 10**6
    assert len(bundled) == 6000
    per_person = Counter(record["unit"] for record in bundled)
    assert len(per_person) == 900
    assert 4 <= min(per_person.values()) < max(per_person.values()) <= 12
    assert len({record["id"] for record in bundled}) == len({record["text"] for record in bundled}) == 6000
    words = [len(record["text"].split()) for record in bundled]
    assert 25 <= min(words) <= max(words) <= 110
    assert 40 <= sum(words) / 6000 <= 60


def test_gold_spans_are_exact(bundled):
    for record in bundled:
        assert list(record) == ["id", "unit", "text", "spans"]
        text, end = record["text"], 0
        for span in record["spans"]:
            assert end <= span["start"] < span["end"] <= len(text)
            value, end = text[span["start"] : span["end"]], span["end"]
            assert value == value.strip() != ""
            assert not re.match(r"\w", text[span["end"] :])  # nothing of a word is left outside
            assert not re.search(r"\w\Z", text[: span["start"]])


def test_the_labels_are_many(bundled):
    counts = Counter(span["label"] for record in bundled for span in record["spans"])
    assert set(counts) == LABELS
    assert min(counts.values()) >= 15
    assert sum(counts.values()) / 6000 >= 5
    assert len(values(bundled, "PERSON")) > 4000


def test_the_texts_read_well(bundled):
    slips = {
        "a space too many": r"  | \n|\n | [,.;:?!](?!\w)",
        "notation left": r"[{}\[\]]|\(n\)",
        "a stop too many": r"(?<!\.)\.\.(?!\.)|\?\.|,,|\.;|:\.",
        "the wrong article": r"\b[Aa] (?:[aeio]\w{3,}|MRI|ECG)\b(?<!one)(?<!euro)|\b[Aa]n [bcdfgjklmnpqrstvwyz]\w+",
    }
    for name, pattern in slips.items():
        assert not [r["id"] for r in bundled if re.search(pattern, re.sub(r"(?<=[\w.])\.,", ",", r["text"]))], name


def test_no_value_is_left_without_a_span(bundled):
    """An address, a number or a name that is gold once must be gold wherever it stands in that text."""
    missed = Counter()
    for record in bundled:
        text, covered = record["text"], [(s["start"], s["end"]) for s in record["spans"]]
        outside = "".join(text[a:b] + "\n" for (_, a), (b, _) in itertools.pairwise([(0, 0), *covered, (len(text),) * 2]))
        missed["mail"] += "@" in outside
        missed["digits"] += bool(re.search(r"\d{5,}|\d{3}[- ]\d{3}", outside))
        missed["again"] += any(len(v) > 4 and v in outside for v in (text[a:b] for a, b in covered))
    assert not +missed


def test_masked_texts_stay_different(bundled):
    masked = set()
    for record in bundled:
        text = record["text"]
        for span in reversed(record["spans"]):
            text = text[: span["start"]] + span["label"] + text[span["end"] :]
        masked.add(re.sub(r"\d+", "0", text))
    assert len(masked) > 5900


def test_people_are_consistent(bundled):
    said = defaultdict(lambda: defaultdict(set))
    for record in bundled:
        for key, value in re.findall(r"^(name|email|phone|address|customer number): (.*)$", record["text"], re.M | re.I):
            said[record["unit"]][key.lower()].add(value)
    assert all(len(values) == 1 for keys in said.values() for values in keys.values())
    assert sum(len(keys) >= 2 for keys in said.values()) > 100


def test_slips_and_styles_occur(bundled):
    texts = [record["text"] for record in bundled]
    assert sum("'m " in text or "don't" in text for text in texts) > 200
    assert sum(text[:20] == text[:20].lower() for text in texts) > 20
    words = Counter(word for text in texts for word in re.findall(r"\b[a-z]{5,}\b", text))
    rare = {word for word, count in words.items() if count <= 2}
    assert 0.05 < sum(bool(rare & set(re.findall(r"\b[a-z]{5,}\b", text))) for text in texts) / 6000 < 0.4


def test_the_corpus_reader_takes_it(tmp_path):
    corpus = read(example.path(), load("default"), tmp_path / "corpus")
    assert (corpus.records, corpus.units, corpus.has_units, corpus.duplicates) == (6000, 900, True, 0)
    assert (corpus.shape, corpus.refused) == ("text", {})
    assert next(load_records(corpus.folder / "records.jsonl")).id == "m00001"


@pytest.mark.skipif(faker.VERSION != MADE_WITH, reason="another version of Faker makes other names")
def test_the_bundled_file_is_what_the_generator_writes(bundled):
    assert list(itertools.islice(example.generate(), 40)) == bundled[:40]


# -------------------------------------------------------------------------------------------------------- check digits


def test_cards_pass_luhn(bundled):
    cards = values(bundled, "CREDIT_CARD")
    assert len(cards) > 100
    for card in cards:
        digits = [int(c) for c in card if c.isdigit()]
        assert len(digits) in (15, 16)
        assert sum(sum(divmod(2 * d, 10)) if at % 2 else d for at, d in enumerate(reversed(digits))) % 10 == 0


def test_ibans_pass_mod_97(bundled):
    ibans = values(bundled, "IBAN_CODE")
    assert {iban[:2] for iban in ibans} == {"GB", "IE", "DE", "FR", "ES", "IT"}
    for iban in ibans:
        turned = iban.replace(" ", "")[4:] + iban[:4]
        assert int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def test_national_numbers_are_valid(bundled):
    for nhs in values(bundled, "UK_NHS"):
        digits = [int(c) for c in nhs if c.isdigit()]
        assert len(digits) == 10
        assert sum(d * weight for d, weight in zip(digits, range(10, 0, -1), strict=True)) % 11 == 0
    for nino in values(bundled, "UK_NINO"):
        assert re.fullmatch(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", nino.replace(" ", ""))
    for ssn in values(bundled, "US_SSN"):
        assert re.fullmatch(r"(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}", ssn)
    for dea in values(bundled, "MEDICAL_LICENSE"):
        d = [int(c) for c in dea[2:]]
        assert (d[0] + d[2] + d[4] + 2 * (d[1] + d[3] + d[5])) % 10 == d[6]


@given(st.integers(0, 10**9))
def test_drawn_numbers_are_valid_whatever_the_seed(seed):
    draw = random.Random(seed)
    digits = [int(c) for c in identifiers.nhs(draw) if c.isdigit()]
    assert sum(d * weight for d, weight in zip(digits, range(10, 0, -1), strict=True)) % 11 == 0
    mac = identifiers.mac(draw)
    assert re.fullmatch(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}", mac)
    assert re.fullmatch(r"[0-9a-f:.]+", identifiers.ip(draw))


def test_telephone_numbers_are_dialable():
    phonenumbers = pytest.importorskip("phonenumbers")
    maker = Maker(example._assets() / "homes.yaml", 1)
    for home in maker.homes:
        for _ in range(30):
            number = maker.phone(home)
            assert phonenumbers.is_valid_number(phonenumbers.parse(number, home[-2:])), number


# ------------------------------------------------------------------------------------------------------- the generator


def test_the_same_seed_gives_the_same_records(tmp_path):
    first = list(example.generate(60, 9, 3))
    assert first == list(example.generate(60, 9, 3))
    assert first != list(example.generate(60, 9, 4))
    assert example.write(tmp_path / "a.gz", records=30, people=5, seed=1) == (tmp_path / "a.gz").stat().st_size
    example.write(tmp_path / "b.gz", records=30, people=5, seed=1)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_two_generators_do_not_disturb_each_other():
    pairs = list(zip(example.generate(20, 4, 1), example.generate(20, 4, 2), strict=True))
    assert [one for one, _ in pairs] == list(example.generate(20, 4, 1))


@given(st.integers(1, 60), st.integers(0, 400))
def test_shares_are_exact(people, more):
    records = people + more
    shares = example._shares(random.Random(0), records, people)
    assert sum(shares) == records
    assert len(shares) == people
    if 4 * people <= records <= 12 * people:
        assert 4 <= min(shares) <= max(shares) <= 12


@pytest.mark.parametrize("kind", ["support", "clinical"])
def test_every_slot_has_a_pool_or_a_value(kind):
    grammar = Grammar(example._assets() / f"{kind}.txt")
    maker = Maker(example._assets() / "homes.yaml", 0)
    topics = grammar.topics()
    known = {"drug", "dose"}
    for number in range(1, 60):
        known |= set(message(maker, person(maker, number, {kind: topics[:1]}, None), own=True))
    names = set(grammar._pools)
    assert len(topics) >= 12

    def slots(nodes):
        for node in nodes:
            if isinstance(node, Slot):
                yield node.name
            elif isinstance(node, Choice):
                yield from (name for option in node.options for name in slots(option))

    for pool in grammar._pools.values():
        here = [pool.name.split("/")[0]] if "/" in pool.name else topics
        for name in {name for option in pool.options for name in slots(option)}:
            assert name in known or name in names or all(f"{topic}/{name}" in names for topic in here), (pool.name, name)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.text("ab .,\n", min_size=1), st.none())
        | st.tuples(st.from_regex("[A-Z][a-z]{1,4}", fullmatch=True), st.just("X")),
        min_size=1,
    )
)
def test_spans_survive_whatever_is_done_to_the_words(segments):
    text, spans = finished(segments, lambda plain: plain.upper() + "--")
    assert [text[s["start"] : s["end"]] for s in spans] == [piece for piece, label in segments if label]


def test_slips_change_words_and_nothing_else():
    maker = Maker(example._assets() / "homes.yaml", 0)
    one = person(maker, 1, {"support": ["bank"]}, None)
    one.style.typos, one.style.lower, one.style.contracts = 1.0, False, True
    hand = example._Hand(random.Random(0), one, own=True)
    told = hand("I am certain that nothing arrived, Ref 1234.")
    assert told.startswith("I'm ")
    assert told.endswith(", Ref 1234.")
    assert not set(re.findall(r"[a-z]{4,}", told)) & {"certain", "nothing", "arrived"}
    assert abs(len(told) - len("I'm certain that nothing arrived, Ref 1234.")) <= 4


def test_notation():
    scope = Scope("t", {"name": lambda: [("Ann", "PERSON")], "thing": lambda: [("owl", None)]}, random.Random(0), {})
    grammar = Grammar.__new__(Grammar)
    grammar._pools = {}

    def told(template: str) -> tuple[str, list]:
        return finished(grammar._written(parsed(template), scope), str)

    assert told("A(n) {thing} and a(n) cat.") == ("An owl and a cat.", [])
    assert told("{Thing} [x|x] , {name}.") == ("Owl x, Ann.", [{"start": 7, "end": 10, "label": "PERSON"}])
    assert told("[{nothing}|{name}]'s")[0] == "Ann's"
