"""Who was in which runs: hashes, the partition, and what a budget's people are charged; the truth is brute force over units."""

from __future__ import annotations

import multiprocessing
import secrets
import stat
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cohorts
from pipeline import policy as policies
from pipeline.cohorts import hashed, load_key, refine, units_of
from pipeline.corpus import Part, Record, save_records
from pipeline.errors import BudgetExhausted, IntegrityError, StageError, UsageError
from pipeline.ledger import Ledger
from pipeline.policy import Lifetime
from tests.test_composition import QUICK, independent
from tests.test_ledger import plan, postgresql, where  # noqa: F401 - fixtures

KEY = b"k" * 32


def people(*names: str | int, key: bytes = KEY):
    return hashed("person", [str(name) for name in names], key)


def lifetime(budget: str = "people", epsilon: float = 1.3, also: tuple[str, ...] = ()) -> Lifetime:
    return Lifetime(budget=budget, epsilon=epsilon, delta=1e-5, also=also)


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    return Ledger(tmp_path)


# Hashes.


def test_a_hash_is_of_kind_name_and_key_and_not_of_spelling():
    assert people("Ann Smith").digest == people("  ann   SMITH ").digest == people("Ａnn Smith").digest
    assert people("ann").digest != people("anne").digest
    assert people("ann").digest != hashed("record", ["ann"], KEY).digest
    assert people("ann").digest != people("ann", key=b"l" * 32).digest
    assert people("ann").key != people("ann", key=b"l" * 32).key
    assert len(people("ann", "bob", "Ann").hashes) == 2


def test_a_record_is_known_by_its_text_and_a_person_by_the_unit(tmp_path):
    class Read:
        folder = tmp_path

    records = [Record(str(k), f"u{k % 2}", (Part("prompt", f"text {k % 3}"), Part("completion", "yes"))) for k in range(6)]
    save_records(tmp_path / "records.jsonl", records)
    assert (
        units_of(Read, policies.load("default"), KEY).digest
        == hashed("record", [f"text {k}\nyes" for k in range(3)], KEY).digest
    )
    assert units_of(Read, policies.load("gdpr"), KEY).digest == people("u0", "u1").digest


def _load(home, results):
    results.put(load_key(home))


def test_the_key_is_its_owners_alone_and_made_once(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_load, args=(tmp_path, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    keys = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert keys == {load_key(tmp_path)}
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["units.key"]
    assert stat.S_IMODE((tmp_path / "keys" / "units.key").stat().st_mode) == 0o600
    (tmp_path / "keys" / "units.key").write_bytes(b"short")
    with pytest.raises(StageError, match="not whole"):
        load_key(tmp_path)
    assert load_key(tmp_path / "other", make=False) != load_key(tmp_path / "other", make=False)
    assert not (tmp_path / "other").exists()


# The partition.


@given(st.lists(st.sets(st.integers(0, 30)), max_size=7))
def test_cohorts_are_the_units_that_were_in_the_same_runs(runs):
    parts: dict[int, np.ndarray] = {}
    inside: dict[int, set[int]] = {}
    for number, run in enumerate(runs):
        given_hashes = np.array(sorted(run), dtype=np.uint64)
        found = refine(parts, given_hashes, 1 + max(parts, default=0))
        assert sum(found.seen.values()) == len(run & {int(one) for hashes in parts.values() for one in hashes})
        for made in found.made:
            inside[made.id] = set(inside.get(made.parent, ()))
            parts[made.id] = made.hashes
        for made in found.made:
            parts.pop(made.parent, None)
        for cohort in found.inside:
            inside[cohort].add(number)
        assert {int(one) for cohort in found.inside for one in parts[cohort]} == run
    truth: dict[frozenset, set[int]] = {}
    for unit in set().union(*runs):
        truth.setdefault(frozenset(k for k, run in enumerate(runs) if unit in run), set()).add(unit)
    assert {frozenset(inside[cohort]): {int(one) for one in hashes} for cohort, hashes in parts.items()} == truth


# The ledger.


def test_people_are_charged_only_for_the_runs_that_they_were_in(where):  # noqa: F811
    ledger = Ledger(where)
    groups = [range(10), range(5, 20), range(20, 30), range(8)]
    for number, group in enumerate(groups):
        claim = ledger.reserve(**plan(f"run-{number}", lifetime=lifetime(epsilon=9)), units=people(*group))
        ledger.close(claim, 40 - number)
    runs = {person: [k for k, group in enumerate(groups) if person in group] for person in range(30)}
    truth = max(independent([QUICK.of(sum(40 - k for k in mine))], 1e-5) for mine in runs.values())
    standing = ledger.standing("people")
    assert standing.epsilon_spent == pytest.approx(truth, abs=1e-6)
    assert standing.epsilon_spent < independent([QUICK.of(40 + 39 + 38 + 37)], 1e-5)  # the control: one cohort for all
    assert standing.runs == 4
    shown = {one.units: [run[-1] for run in one.runs] for one in ledger.cohorts("people")}
    assert shown == {3: ["0", "1", "3"], 2: ["0", "1"], 5: ["0", "3"], 10: ["2"]} | {10: shown[10]}
    assert standing.cohorts == 5
    ledger.verify()


def test_growing_data_exhausts_only_the_oldest(ledger):
    """Forty steps a week fit twice; people who come later have what is left to them."""
    for week in range(2):
        ledger.reserve(**plan(f"week-{week}"), units=people(*range(10 * week + 10)))
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**plan("week-2"), units=people(*range(30)))
    ledger.reserve(**plan("week-2"), units=people(*range(10, 30)))  # without those of the first week
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**plan("everybody", steps=40))  # a run that does not say whom it is about is about everybody
    assert ledger.standing("people").epsilon_spent <= 1.3


def test_a_run_without_units_counts_for_everybody(ledger):
    ledger.reserve(**plan("nobody named"))
    ledger.reserve(**plan("named"), units=people(1, 2))
    assert ledger.standing("people").epsilon_spent == pytest.approx(independent([QUICK.of(80)], 1e-5), abs=1e-6)
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**plan("again"), units=people(2, 3))
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**plan("again"))


def test_the_same_people_under_another_name_are_refused(ledger):
    ledger.reserve(**plan("one"), units=people("ann", "bob"))
    before = ledger.head()
    with pytest.raises(
        UsageError, match=r"At least 1 person of this data are in budget people already.*privacy\.lifetime\.also"
    ):
        ledger.reserve(**plan("two", lifetime=lifetime("others")), units=people("bob", "cat"))
    assert ledger.head() == before
    ledger.reserve(**plan("two", lifetime=lifetime("others")), units=people("cat"))  # the control: other people


def test_a_named_budget_counts_here_and_its_cap_holds(ledger):
    ledger.reserve(**plan("one", steps=80), units=people("ann", "bob"))
    both = lifetime("others", 9, also=("people",))
    with pytest.raises(BudgetExhausted, match="Budget people cannot hold run two"):  # ε 1.3 of people, not 9 of others
        ledger.reserve(**plan("two", lifetime=both), units=people("bob", "cat"))
    ledger.reserve(**plan("two", steps=10, lifetime=both), units=people("bob", "cat"))
    expected = independent([QUICK.of(90)], 1e-5)
    for budget in ("people", "others"):
        assert ledger.standing(budget).epsilon_spent == pytest.approx(expected, abs=1e-6)
    assert ledger.standing("people").runs == 1
    with pytest.raises(UsageError, match="in budget others already"):  # and back: the first budget's policy must name it, too
        ledger.reserve(**plan("three", steps=1), units=people("bob"))


def test_another_key_is_refused(ledger):
    ledger.reserve(**plan("one"), units=people("ann"))
    with pytest.raises(UsageError, match=r"another HOME/keys/units\.key"):
        ledger.reserve(**plan("two", lifetime=lifetime("others")), units=people("ann", key=b"l" * 32))


def test_a_resumed_run_with_other_people_is_another_reservation(ledger):
    first = ledger.reserve(**plan("one", steps=9), units=people("ann"))
    assert ledger.reserve(**plan("one", steps=9), units=people("ann")) == first
    assert ledger.reserve(**plan("one", steps=9), units=people("ann", "bob")).id != first.id
    sealed = ledger.reserve(**plan("one", steps=9, manifest="a"), units=people("ann"))
    assert sealed.id != first.id
    assert ledger.history("people")[-1].detail["manifest"] == "a"
    ledger.reserve(**plan("two", steps=9, lifetime=lifetime("others", also=("people",))), units=people("ann"))
    assert ledger.reserve(**plan("one", steps=9, manifest="a"), units=people("ann")) == sealed  # its claim is older than that


def test_a_plan_shows_what_each_cohort_would_have_spent(ledger):
    ledger.reserve(**plan("one"), units=people("ann", "bob"))
    units = people("bob", "cat", "dan")
    shown = ledger.cohorts("people", planned=[QUICK], units=units)
    one, two = independent([QUICK], 1e-5), independent([QUICK.of(80)], 1e-5)
    figures = {(c.units, c.runs, c.planned): (c.epsilon_spent, c.epsilon_after) for c in shown}
    assert figures.keys() == {(1, ("one",), True), (1, ("one",), False), (2, (), True)}
    assert figures[1, ("one",), True] == pytest.approx((one, two), abs=1e-6)
    assert figures[1, ("one",), False] == pytest.approx((one, one), abs=1e-6)
    assert figures[2, (), True] == pytest.approx((0, one), abs=1e-6)
    assert ledger.standing("people", planned=[QUICK], units=units).epsilon_spent == pytest.approx(two, abs=1e-6)
    assert ledger.standing("people", planned=[QUICK], units=people("dan")).epsilon_spent == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize(
    "edit", ["UPDATE cohorts SET units = x'00'", "DELETE FROM cohorts", "INSERT INTO cohorts VALUES (9, 'person', x'00')"]
)
def test_an_edit_of_a_cohort_is_found(ledger, edit):
    ledger.reserve(**plan("one", steps=1), units=people("ann", "bob"))
    ledger.verify()
    with ledger._database.write() as connection:
        connection.exec_driver_sql(edit)
    with pytest.raises(IntegrityError, match="Cohort"):
        ledger.verify()
    with pytest.raises(IntegrityError, match="Cohort"):
        ledger.reserve(**plan("two", steps=1), units=people("cat"))


def test_a_million_units_stay_practical(ledger, monkeypatch):
    """Weekly growth by a percent, on a budget of a million: a reservation takes seconds, and each unit eight bytes."""
    monkeypatch.setattr(cohorts, "hashed", None)  # hashing is linear and not what is tested
    drawn = np.unique(np.random.default_rng(0).integers(0, 2**63, 1_020_000, dtype=np.uint64))
    mixed = np.random.default_rng(1).permutation(drawn)
    for week in range(3):
        units = cohorts.Units("person", "k", np.sort(mixed[: 1_000_000 + 10_000 * week]))
        started = time.monotonic()
        ledger.reserve(**plan(f"week-{week}", steps=1), units=units)
        assert time.monotonic() - started < 20
    with ledger._database.read() as connection:
        stored = connection.exec_driver_sql("SELECT sum(length(units)) FROM cohorts").scalar_one()
    assert stored <= 8 * len(drawn)
    assert ledger.standing("people").cohorts == 3


def test_people_who_are_known_by_something_else_do_not_pass_for_new(ledger):
    """The same data by another column or pattern: nobody would be recognised, and the budget would begin anew."""
    ledger.reserve(**plan("one"), units=people("ann@a", "bob@b")._replace(by="column mail"))
    renamed = people("ann", "bob")._replace(by="column mail and pattern ^[^@]+")
    ledger.reserve(**plan("control"), units=people("cat")._replace(by="column mail"))
    before = ledger.head()
    for ask in (ledger.reserve, lambda **more: ledger.standing("people", units=more["units"])):
        with pytest.raises(UsageError, match=r"knows its people by column mail and this run by column mail and pattern"):
            ask(**plan("two"), units=renamed)
    assert ledger.head() == before
    assert ledger.history("people")[0].detail["units"]["by"] == "column mail"


def test_a_key_that_others_may_read_is_refused(tmp_path):
    cohorts.load_key(tmp_path)
    (tmp_path / "keys" / "units.key").chmod(0o640)
    with pytest.raises(StageError, match="chmod 600"):
        cohorts.load_key(tmp_path)


def test_nobody_can_be_found_without_the_key(ledger, tmp_path):
    """The stored bytes hold no name, and no hash that a name alone gives."""
    import hashlib

    key = secrets.token_bytes(32)
    ledger.reserve(**plan("one"), units=people("ann.sample", key=key))
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"ann.sample" not in raw
    for text in (b"ann.sample", b"person\nann.sample"):
        assert hashlib.sha256(text).digest()[:8] not in raw
        assert hashlib.sha256(text).digest()[:8][::-1] not in raw
    assert people("ann.sample", key=key).hashes.astype("<u8").tobytes() in raw  # the control
