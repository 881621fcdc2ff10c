from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline import _account, _chain, _grant
from pipeline.cohorts import hashed
from pipeline.errors import BudgetExhausted, IntegrityError, StageError, UsageError
from pipeline.folders import canonical
from pipeline.ledger import Head, Ledger, Spend
from pipeline.policy import Lifetime
from tests import postgres
from tests.test_composition import QUICK, independent

# 40 steps of QUICK are worth ε 0.80 at δ 1e-5, 80 are worth 1.16, 120 are 1.45.
LIFETIME = Lifetime(budget="people", epsilon=1.3, delta=1e-5)
FORK = multiprocessing.get_context("fork")
CLEAN = multiprocessing.get_context("forkserver")  # forks a fresh process: this one's threads may hold locks
CLEAN.set_forkserver_preload(["tests.test_ledger", "dp_accounting.pld.privacy_loss_distribution"])


def plan(run: str, **changes) -> dict:
    """What a run hands to `reserve`."""
    content = {
        "run": run,
        "lifetime": LIFETIME,
        "sampling_rate": QUICK.sampling_rate,
        "noise_multiplier": QUICK.noise_multiplier,
        "steps": QUICK.steps,
        "epsilon": 1.0,
        "delta": 1e-5,
        "policy_digest": "d" * 64,
        "unit": "person",
    }
    return content | changes


@pytest.fixture(scope="session")
def postgresql():
    with postgres.server() as url:
        yield url


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    return Ledger(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path, monkeypatch) -> Path | str:
    """A ledger on each kind of database."""
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    return tmp_path if request.param == "sqlite" else postgres.database(request.getfixturevalue("postgresql"))


# Reserve, spend, close.


def test_a_run_from_reservation_to_close(ledger):
    claim = ledger.reserve(**plan("one"))
    assert claim.mechanism == QUICK
    assert (claim.budget, claim.run, claim.epsilon, claim.delta) == ("people", "one", 1.0, 1e-5)
    whole = ledger.standing("people")
    assert whole.epsilon_spent == pytest.approx(independent([QUICK], 1e-5), abs=1e-6)
    for step in range(1, 11):
        ledger.spend(claim, step)
    assert ledger.standing("people") == whole  # an open claim is charged in full, from the beginning
    ledger.close(claim, 10)
    ended = ledger.standing("people")
    assert ended.epsilon_spent == pytest.approx(independent([QUICK.of(10)], 1e-5), abs=1e-6)
    assert ended.epsilon_sum == pytest.approx(ended.epsilon_spent, abs=1e-6)
    assert ended.epsilon_left == pytest.approx(1.3 - ended.epsilon_spent)
    assert (ended.runs, ended.epsilon_cap, ended.delta) == (1, 1.3, 1e-5)
    kinds = [entry.kind for entry in ledger.history("people")]
    assert kinds == ["reserve", *["spend"] * 10, "close"]
    reserved = ledger.history("people")[0].detail
    assert reserved["policy"] == "d" * 64
    assert reserved["unit"] == "person"
    assert ledger.verify() == ledger.head() == Head(entries=12, hash=ledger.history("people")[-1].hash)


def test_a_claim_that_never_closes_is_charged_in_full(ledger, tmp_path):
    ledger.spend(ledger.reserve(**plan("crashed")), 3)
    charge = Ledger(tmp_path).charges("people")[0]
    assert (charge.taken, charge.charged, charge.closed) == (3, 40, False)


def test_closing_charges_the_most_that_was_said(ledger):
    below, above = ledger.reserve(**plan("below", steps=5)), ledger.reserve(**plan("above", steps=6))
    ledger.spend(below, 4)
    ledger.close(below, 2)  # fewer than recorded: nothing is refunded
    ledger.spend(above, 4)
    ledger.close(above, 5)
    assert [(charge.taken, charge.charged) for charge in ledger.charges("people")] == [(4, 4), (5, 5)]
    assert [ledger.taken(claim) for claim in (below, above)] == [4, 5]


def test_a_closed_claim_refuses(ledger):
    claim = ledger.reserve(**plan("one"))
    ledger.spend(claim, 1)
    ledger.close(claim, 1)
    ledger.close(claim, 1)  # a stage that runs again
    with pytest.raises(StageError, match="closed"):
        ledger.spend(claim, 2)
    with pytest.raises(StageError, match="do not release"):
        ledger.close(claim, 2)
    assert len(ledger.history("people")) == 3


def test_a_step_beyond_the_reservation_is_refused_and_not_recorded(ledger):
    claim = ledger.reserve(**plan("one"))
    ledger.spend(claim, 40)
    for verb in (ledger.spend, ledger.close):
        with pytest.raises(BudgetExhausted, match="reserved 40 steps") as raised:
            verb(claim, 41)
        assert raised.value.exit_code == 4
    assert ledger.taken(claim) == 40
    assert ledger.charges("people")[0].charged == 40


def test_a_running_total_only_grows(ledger):
    claim = ledger.reserve(**plan("one"))
    ledger.spend(claim, 5)
    for steps in (5, 4, 0, -1):
        with pytest.raises(StageError, match="5 are recorded already"):
            ledger.spend(claim, steps)


def test_a_resumed_run_gets_its_claim_back(ledger, tmp_path):
    claim = ledger.reserve(**plan("one"))
    ledger.spend(claim, 7)
    again = Ledger(tmp_path)
    assert again.reserve(**plan("one")) == claim
    assert again.taken(claim) == 7
    assert again.reserve(**plan("one", steps=5)).id != claim.id  # another plan is another reservation
    assert again.reserve(**plan("two", steps=5)).id != claim.id
    again.close(claim, 7)
    assert again.reserve(**plan("one")) == claim  # crashed after training: nothing is charged twice
    with pytest.raises(StageError, match="closed"):
        again.spend(claim, 8)


def test_a_claim_of_another_ledger_is_unknown(ledger, tmp_path):
    claim = Ledger(tmp_path / "other").reserve(**plan("one"))
    for verb in (ledger.spend, ledger.close):
        with pytest.raises(StageError, match="not in the ledger"):
            verb(claim, 1)
    mine = ledger.reserve(**plan("one"))
    with pytest.raises(StageError, match="not in the ledger"):
        ledger.spend(mine.model_copy(update={"budget": "elsewhere"}), 1)


# The cap.


def test_the_cap_holds_and_the_refusal_says_what_is_left(ledger):
    for run in ("one", "two"):
        ledger.reserve(**plan(run))
    before = ledger.head()
    with pytest.raises(BudgetExhausted) as raised:
        ledger.reserve(**plan("three"))
    standing = ledger.standing("people")
    sentence = str(raised.value)
    assert f"{standing.epsilon_spent:.3f} is spent and {standing.epsilon_left:.3f} is left" in sentence
    assert ledger.head() == before
    fits = int(sentence.split("; ")[1].split()[0])
    assert 0 < fits < 40
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**plan("three", steps=fits + 1))
    ledger.reserve(**plan("three", steps=fits))
    assert ledger.standing("people").epsilon_spent <= 1.3


def test_the_cap_is_exact(ledger):
    exact = ledger.standing("people", lifetime=LIFETIME, planned=[QUICK]).epsilon_spent
    with pytest.raises(BudgetExhausted):
        ledger.reserve(**plan("one", lifetime=Lifetime(budget="people", epsilon=exact * (1 - 1e-9), delta=1e-5)))
    ledger.reserve(**plan("one", lifetime=Lifetime(budget="people", epsilon=exact, delta=1e-5)))
    assert ledger.standing("people").epsilon_left == 0


def test_a_refused_run_says_when_nothing_fits(ledger):
    with pytest.raises(BudgetExhausted, match="0 of them would fit"):
        ledger.reserve(**plan("one", lifetime=Lifetime(budget="people", epsilon=0.001, delta=1e-5)))
    assert ledger.budgets() == []


def test_a_policy_can_tighten_a_cap_and_never_loosen_it(ledger):
    ledger.reserve(**plan("one"))
    with pytest.raises(BudgetExhausted, match=r"ε 1\.3 .*the tightest cap that a run has registered"):
        ledger.reserve(**plan("two", steps=80, lifetime=Lifetime(budget="people", epsilon=9, delta=1e-4)))
    tight = Lifetime(budget="people", epsilon=1.2, delta=1e-6)
    ledger.reserve(**plan("three", steps=20, lifetime=tight))
    standing = ledger.standing("people", lifetime=Lifetime(budget="people", epsilon=9, delta=1e-4))
    assert (standing.epsilon_cap, standing.delta) == (1.2, 1e-6)
    assert standing.epsilon_spent == pytest.approx(independent([QUICK.of(60)], 1e-6), abs=1e-6)


def test_budgets_are_apart(ledger):
    ledger.reserve(**plan("one", steps=80))
    other = Lifetime(budget="others", epsilon=1.3, delta=1e-5)
    ledger.reserve(**plan("two", steps=80, lifetime=other))
    assert ledger.budgets() == ["others", "people"]
    assert [entry.run for entry in ledger.history("others")] == ["two"]
    assert ledger.standing("others").runs == 1


def test_records_and_persons_do_not_share_a_budget(ledger):
    ledger.reserve(**plan("one"))
    entries = ledger.head().entries
    message = "Budget people protects one person and this policy one record: name another budget in privacy.lifetime.budget."
    with pytest.raises(UsageError) as caught:
        ledger.reserve(**plan("two", unit="record", steps=1))
    assert str(caught.value) == message
    with pytest.raises(UsageError, match="protects one person"):
        ledger.standing("people", lifetime=LIFETIME, planned=[QUICK.of(1)], unit="record")
    assert ledger.head().entries == entries
    ledger.standing("people", planned=[QUICK.of(1)], unit="person")
    ledger.reserve(**plan("two", unit="record", lifetime=Lifetime(budget="records", epsilon=1.3, delta=1e-5)))
    content = plan("three")
    del content["unit"]
    with pytest.raises(TypeError, match="unit"):
        ledger.reserve(**content)


def test_the_past_of_a_budget_is_its_runs_in_order(ledger):
    first = ledger.reserve(**plan("one"))
    ledger.close(first, 20)
    ledger.reserve(**plan("two"))
    one, two = ledger.past("people")
    assert [(past.run, past.at[:2]) for past in (one, two)] == [("one", "20"), ("two", "20")]
    assert one.epsilon == pytest.approx(independent([Spend(**QUICK.model_dump() | {"steps": 20})], 1e-5), rel=0.02)
    assert two.epsilon > one.epsilon  # forty steps, and not closed: charged in full
    assert one.composed < two.composed <= LIFETIME.epsilon  # where the budget stood when each was reserved
    assert ledger.past("others") == []


def test_standing_of_a_budget_not_used_yet(ledger):
    with pytest.raises(UsageError, match="no budget people"):
        ledger.standing("people")
    standing = ledger.standing("people", lifetime=LIFETIME, planned=[QUICK])
    assert standing.runs == 0
    assert standing.epsilon_spent == pytest.approx(independent([QUICK], 1e-5), abs=1e-6)
    assert ledger.history("people") == []
    assert ledger.charges("people") == []


def test_weekly_retrains_compose_below_their_sum(ledger):
    """Growing data, so another sampling rate each week; one run crashed, one stopped early."""
    lifetime, history = Lifetime(budget="people", epsilon=3, delta=1e-5), []
    for week in range(5):
        rate = 50 / (250 + 10 * week)
        claim = ledger.reserve(**plan(f"week-{week}", lifetime=lifetime, sampling_rate=rate))
        taken = {3: 12}.get(week, 40)
        ledger.spend(claim, taken)
        if week != 1:
            ledger.close(claim, taken)
        history.append(Spend(sampling_rate=rate, noise_multiplier=6.0, steps=taken))
    standing = ledger.standing("people")
    assert standing.epsilon_spent == pytest.approx(independent(history, 1e-5), abs=1e-6)
    assert standing.epsilon_sum == pytest.approx(sum(independent([one], 1e-5) for one in history), abs=1e-6)
    assert standing.epsilon_spent < standing.epsilon_sum
    assert standing.runs == 5


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"steps": -3}, {"sampling_rate": 0.0}, {"sampling_rate": 2.0}, {"noise_multiplier": 0.0}],
)
def test_a_plan_out_of_range_is_refused(ledger, wrong):
    with pytest.raises(UsageError):
        ledger.reserve(**plan("one", **wrong))
    assert ledger.head().entries == 0


# Hypothesis: any order of reserving, spending, crashing, resuming and closing, by several processes, over people that overlap.

CAPS = {"people": 1.3, "others": 0.9}


class Life(RuleBasedStateMachine):
    """Runs come and go, in two processes; `applied` counts the noisy steps that really touched the weights."""

    claims = Bundle("claims")
    process = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.ledgers = [Ledger(self.home), Ledger(self.home)]
        self.runs: dict[str, dict] = {}
        self.about: dict[str, frozenset | None] = {}
        self.recorded: dict[str, int] = {}
        self.applied: dict[str, int] = {}
        self.closed: set[str] = set()
        self.loose = False

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    def planned(self, run: str, budget: str, steps: int, named: bool, about: frozenset | None) -> dict:
        cap = 5 if self.loose else CAPS[budget]
        lifetime = Lifetime(budget=budget, epsilon=cap, delta=1e-4 if self.loose else 1e-5, also=tuple(CAPS) if named else ())
        units = None if about is None else hashed("person", map(str, about), b"k" * 32)
        return plan(run, steps=steps, lifetime=lifetime, units=units)

    @rule(
        target=claims,
        process=process,
        budget=st.sampled_from(sorted(CAPS)),
        steps=st.sampled_from([5, 10, 20]),
        named=st.booleans(),
        about=st.none() | st.frozensets(st.integers(0, 3), min_size=1),
    )
    def reserve(self, process, budget, steps, named, about):
        run = f"run-{len(self.runs)}"
        ledger = self.ledgers[process]
        content = self.planned(run, budget, steps, named, about)
        before = ledger.head()
        elsewhere = {p for p in about or () for r in self.people_of(p) if self.runs[r]["lifetime"].budget != budget}
        try:
            claim = ledger.reserve(**content)
        except BudgetExhausted:
            assert any(self.spent(one, steps, budget, about) > CAPS[one] for one in CAPS)
            assert ledger.head() == before
            return None
        except UsageError:
            assert not named
            assert elsewhere
            assert ledger.head() == before
            return None
        assert named or not elsewhere
        self.runs[claim.id], self.about[claim.id] = content, about
        self.recorded[claim.id] = self.applied[claim.id] = 0
        return claim

    @rule(process=process, claim=claims, more=st.integers(1, 8), crash=st.booleans())
    def spend(self, process, claim, more, crash):
        if claim is None:
            return
        total = self.recorded[claim.id] + more
        try:
            self.ledgers[process].spend(claim, total)
        except StageError:
            assert claim.id in self.closed
        except BudgetExhausted:
            assert total > claim.mechanism.steps
        else:
            assert claim.id not in self.closed
            assert total <= claim.mechanism.steps
            self.recorded[claim.id] = total
            if not crash:  # a crash in between: recorded, not applied
                self.applied[claim.id] += more

    @rule(process=process, claim=claims)
    def spend_late(self, process, claim):
        """A second process on the same claim, which has not heard of the steps of the first."""
        if claim is not None and claim.id not in self.closed and self.recorded[claim.id]:
            with pytest.raises(StageError):
                self.ledgers[process].spend(claim, self.recorded[claim.id])

    @rule(process=process)
    def restart(self, process):
        self.ledgers[process] = Ledger(self.home)

    @rule(process=process, claim=claims)
    def resume(self, process, claim):
        if claim is None:
            return
        again = self.ledgers[process].reserve(**self.runs[claim.id])
        assert again == claim
        assert self.ledgers[process].taken(again) >= self.recorded[claim.id]

    @rule(process=process, claim=consumes(claims), error=st.integers(-3, 0))
    def close(self, process, claim, error):
        if claim is None:
            return
        self.ledgers[process].close(claim, max(self.applied[claim.id], self.recorded[claim.id] + error, 0))
        self.closed.add(claim.id)

    @precondition(lambda self: {content["lifetime"].budget for content in self.runs.values()} == set(CAPS))
    @rule()
    def loosen(self):
        self.loose = True

    def charged(self, claim: str) -> int:
        return self.recorded[claim] if claim in self.closed else self.runs[claim]["steps"]

    def people_of(self, person) -> list[str]:
        return [claim for claim, about in self.about.items() if about is not None and person in about]

    def spent(self, budget: str, planned: int = 0, where: str = "", about: frozenset | None = None) -> float:
        """ε of the most charged person of a budget: brute force over persons, one of whom was in no run that named anybody."""
        most = 0
        for person in [None, *range(4)]:
            mine = set(self.people_of(person))
            budgets = {self.runs[claim]["lifetime"].budget for claim in mine}
            added = planned if (about is None and (where in budgets or person is None)) or (about and person in about) else 0
            budgets |= {where} if added and person is not None else set()
            if person is None:
                budgets, added = {budget}, planned if about is None and where == budget else 0
            if budget in budgets:
                mine |= {c for c, whom in self.about.items() if whom is None and self.runs[c]["lifetime"].budget in budgets}
                most = max(most, sum(self.charged(claim) for claim in mine) + added)
        return _by_steps(most)

    @invariant()
    def charged_between_taken_and_reserved(self):
        for budget in CAPS:
            charges = self.ledgers[0].charges(budget)
            for charge in charges:
                planned = charge.claim.mechanism.steps
                assert self.applied[charge.claim.id] <= charge.charged == self.charged(charge.claim.id) <= planned
                assert charge.closed or charge.charged == planned
                assert not charge.closed or charge.charged >= self.recorded[charge.claim.id]
            if charges:
                standing = self.ledgers[1].standing(budget)
                assert standing.epsilon_spent == pytest.approx(self.spent(budget), abs=1e-6)
                assert standing.epsilon_spent <= standing.epsilon_cap == CAPS[budget]

    @invariant()
    def chain_is_whole(self):
        self.ledgers[0].verify()


_STEPS: dict[int, float] = {}


def _by_steps(steps: int) -> float:
    if steps not in _STEPS:
        _STEPS[steps] = 0.0 if steps == 0 else independent([QUICK.of(steps)], 1e-5)
    return _STEPS[steps]


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=12, stateful_step_count=16, deadline=None)


def _refund(entry, taken, closed):
    charge = _real_charge(entry, taken, closed)
    return charge if closed else charge.model_copy(update={"charged": taken})  # an open claim for what it took so far


def _forget(entry, taken, closed):
    return _real_charge(entry, max(0, taken - 1) if closed else taken, closed)


_real_charge = _account._charge
FAULTS = {
    "an open claim is charged for what it took": (_account, "_charge", _refund),
    "a closed claim is charged for a step less": (_account, "_charge", _forget),
    "more steps than reserved": (Ledger, "_within", lambda *_: None),
    "caps do not hold": (_account.Book, "cap", lambda *_: (9.0, 1e-5)),
    "other budgets' people are not recognised": (_grant, "_check_names", lambda *_: None),
    "people are charged for one run only": (_account, "_maximal", lambda groups: {frozenset(sorted(g)[:1]) for g in groups}),
}


_SLOW = ("a closed claim is charged for a step less", "more steps than reserved", "other budgets' people are not recognised")


@pytest.mark.parametrize("fault", [pytest.param(one, marks=pytest.mark.slow if one in _SLOW else ()) for one in FAULTS])
def test_the_life_of_a_faulty_ledger_is_found(monkeypatch, fault):
    """The control: the state machine above fails on each of these."""
    owner, name, faulty = FAULTS[fault]
    monkeypatch.setattr(owner, name, faulty)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(
            Life, settings=settings(TestLife.settings, max_examples=100, phases=[Phase.generate], database=None)
        )


# Several processes.


def _reserve_all(where, barrier, results, name: int) -> None:
    barrier.wait()
    ledger, held = Ledger(where), 0
    for attempt in range(3):
        try:
            ledger.reserve(**plan(f"run-{name}-{attempt}", steps=10))
            held += 1
        except BudgetExhausted:
            pass
    results.put(held)


def test_sixteen_processes_that_reserve_at_once_never_overspend(where):
    """Each makes the ledger, too, if it is the first."""
    barrier, results = CLEAN.Barrier(16), CLEAN.Queue()
    workers = [CLEAN.Process(target=_reserve_all, args=(where, barrier, results, name)) for name in range(16)]
    for worker in workers:
        worker.start()
    held = sum(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    fits = next(count for count in range(1, 99) if _by_steps(10 * (count + 1)) > 1.3)
    assert held == fits < 48
    ledger = Ledger(where)
    assert ledger.standing("people").runs == fits
    assert ledger.standing("people").epsilon_spent <= 1.3
    assert ledger.verify().entries == fits


def _reserve_unlocked(where, barrier, results, name: int) -> None:
    """As above, on a ledger that grants under the lock what it has composed before it."""
    from pipeline import ledger as faulty

    real, granted = faulty.grant, []

    def grant(*arguments):
        if not granted:
            granted.append(real(*arguments))
            barrier.wait()
        return granted[0]

    faulty.grant = grant
    ledger = Ledger(where)
    ledger.reserve(**plan(f"run-{name}", steps=10))
    results.put(1)


def test_sixteen_processes_overspend_where_the_lock_does_not_cover_the_composition(tmp_path, monkeypatch):
    """The control of the test above."""
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    Ledger(tmp_path)
    barrier, results = CLEAN.Barrier(16), CLEAN.Queue()
    workers = [CLEAN.Process(target=_reserve_unlocked, args=(tmp_path, barrier, results, name)) for name in range(16)]
    for worker in workers:
        worker.start()
    assert sum(results.get(timeout=120) for _ in workers) == 16
    for worker in workers:
        worker.join()
    assert Ledger(tmp_path).standing("people").epsilon_spent > LIFETIME.epsilon


def _train(home: Path, claim, wire) -> None:
    ledger = Ledger(home)
    for step in range(1, claim.mechanism.steps + 1):
        ledger.spend(claim, step)
        os.write(wire, b".")  # the step is applied


def test_a_killed_run_has_recorded_every_step_it_applied(ledger, tmp_path):
    claim = ledger.reserve(**plan("one", steps=10_000, noise_multiplier=60.0))
    read, write = os.pipe()
    worker = FORK.Process(target=_train, args=(tmp_path, claim, write))
    worker.start()
    time.sleep(0.4)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    os.close(write)
    with os.fdopen(read, "rb") as wire:
        applied = len(wire.read())
    assert 0 < applied <= ledger.taken(claim) <= applied + 1
    ledger.verify()
    assert ledger.charges("people")[0].charged == 10_000


def _race(ledger: Ledger, claim, barrier, results) -> None:
    barrier.wait()
    applied = 0
    for step in range(1, claim.mechanism.steps + 1):
        try:
            ledger.spend(claim, step)
            applied += 1
        except StageError:
            pass
    results.put(applied)


def test_two_processes_on_one_claim_never_take_a_step_for_nothing(ledger):
    """The ledger is carried across a fork here, too."""
    claim = ledger.reserve(**plan("one"))
    barrier, results = FORK.Barrier(2), FORK.Queue()
    workers = [FORK.Process(target=_race, args=(ledger, claim, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    applied = sum(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert applied <= ledger.taken(claim) == 40
    ledger.verify()


# Notes.


def test_what_a_run_has_once_is_not_exchanged(ledger):
    ledger.note_once("one", "evidence", {"digest": "a"})
    ledger.note_once("one", "evidence", {"digest": "a"})  # a stage that runs again
    ledger.note_once("two", "evidence", {"digest": "b"})
    with pytest.raises(IntegrityError, match="evidence of run one is another"):
        ledger.note_once("one", "evidence", {"digest": "b"})
    assert [entry.run for entry in ledger.notes("evidence")] == ["one", "two"]


def test_time_does_not_go_back(ledger, monkeypatch):
    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime(2100, 1, 2, tzinfo=zone)

    assert abs(ledger.now() - datetime.now(UTC)) < timedelta(minutes=1)
    with monkeypatch.context() as patch:
        patch.setattr(_chain, "datetime", Later)
        ledger.note("one", "test", {})
    ledger.note("two", "test", {})
    assert ledger.now() == datetime(2100, 1, 2, tzinfo=UTC)


# The chain.


def _edit(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for trigger in ("entries_no_update", "entries_no_delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def _filled(home: Path) -> Ledger:
    ledger = Ledger(home)
    claim = ledger.reserve(**plan("one"))
    for step in (1, 2, 3):
        ledger.spend(claim, step)
    ledger.close(claim, 3)
    ledger.reserve(**plan("two"))
    return ledger


EDITS = {
    "seq": "UPDATE entries SET seq = 99 WHERE seq = 6",
    "at": "UPDATE entries SET at = '2020-01-01T00:00:00.000+00:00' WHERE seq = 3",
    "kind": "UPDATE entries SET kind = 'close' WHERE seq = 4",
    "budget": "UPDATE entries SET budget = 'others' WHERE seq = 1",
    "claim": "UPDATE entries SET claim = 'feedfeedfeedfeed' WHERE seq = 2",
    "run": "UPDATE entries SET run = 'three' WHERE seq = 6",
    "steps": "UPDATE entries SET steps = 1 WHERE seq = 5",
    "detail": "UPDATE entries SET detail = replace(detail, '\"steps\":40', '\"steps\":4') WHERE seq = 1",
    "hash": "UPDATE entries SET hash = replace(hash, 'a', 'b') WHERE hash LIKE '%a%'",
    "first removed": "DELETE FROM entries WHERE seq = 1",
    "middle removed": "DELETE FROM entries WHERE seq = 3",
    "end cut": "DELETE FROM entries WHERE seq >= 5",
    "all removed": "DELETE FROM entries",
    "one added": "INSERT INTO entries SELECT 7, at, kind, budget, claim, run, steps, detail, hash FROM entries WHERE seq = 6",
    "head": "UPDATE head SET entries = 5",
    "no head": "DELETE FROM head",
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_found(tmp_path, edit):
    ledger = _filled(tmp_path)
    ledger.verify()
    _edit(tmp_path / "ledger.db", EDITS[edit])
    with pytest.raises(IntegrityError):
        ledger.verify()
    with pytest.raises(IntegrityError):  # and nothing more is reserved on it
        Ledger(tmp_path).reserve(**plan("three", steps=1))


def test_the_edited_entry_is_named(tmp_path):
    ledger = _filled(tmp_path)
    _edit(tmp_path / "ledger.db", EDITS["steps"])
    with pytest.raises(IntegrityError, match="Entry 5 of the ledger"):
        ledger.verify()


def test_a_chain_written_anew_is_found_by_an_anchor(tmp_path):
    ledger = _filled(tmp_path)
    anchors = [ledger.head()]
    ledger.reserve(**plan("more", steps=1))
    anchors.append(ledger.head())
    for anchor in anchors:
        assert ledger.verify(anchor) == ledger.head()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM entries ORDER BY seq")]
    connection.close()
    previous, statements = "0" * 64, []
    for row in rows:
        row["steps"] = min(row["steps"], 1)
        content = canonical({key: value for key, value in row.items() if key != "hash"})
        previous = hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()
        statements.append(f"UPDATE entries SET steps = {row['steps']}, hash = '{previous}' WHERE seq = {row['seq']}")
    _edit(tmp_path / "ledger.db", *statements, f"UPDATE head SET hash = '{previous}'")
    ledger.verify()  # a whole chain, only another one
    for anchor in anchors:
        with pytest.raises(IntegrityError, match="recorded elsewhere"):
            ledger.verify(anchor)
    with pytest.raises(IntegrityError, match="recorded elsewhere"):
        ledger.verify(Head(entries=1000, hash="0" * 64))


@pytest.mark.parametrize("statement", [EDITS["steps"], EDITS["middle removed"]])
def test_the_database_itself_refuses_an_accidental_edit(tmp_path, statement):
    _filled(tmp_path)
    connection = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def test_entries_hold_no_more_than_the_run_said(ledger):
    ledger.reserve(**plan("one"))
    detail = ledger.history("people")[0].detail
    assert sorted(detail) == [
        "alone", "composed", "delta", "epsilon", "lifetime", "noise_multiplier", "policy", "sampling_rate", "steps", "unit",
    ]  # fmt: skip
    json.dumps(detail, allow_nan=False)


# The file.


def test_the_files_are_their_owners_alone(tmp_path):
    home = tmp_path / "home"
    ledger = Ledger(home)
    ledger.reserve(**plan("one"))
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    files = list(home.iterdir())
    assert home / "ledger.db" in files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    with sqlite3.connect(home / "ledger.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_the_environment_may_name_another_ledger(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'team' / 'shared.db'}"
    monkeypatch.setenv("HUSHTUNE_LEDGER_URL", url)
    Ledger(tmp_path / "home").reserve(**plan("one"))
    assert not (tmp_path / "home" / "ledger.db").exists()
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL")
    assert Ledger(url).budgets() == ["people"]
    assert Ledger(tmp_path / "home").budgets() == []


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "sqlite:///x.db?mode=ro", "://nonsense"]
)
def test_a_url_that_cannot_serve_is_refused(url):
    with pytest.raises(UsageError, match="ledger's URL"):
        Ledger(url)


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database at all, just text" * 100)
    with pytest.raises(IntegrityError, match="cannot be read as one"):
        Ledger(tmp_path)


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StageError, match="cannot be made"):
        Ledger(tmp_path / "file" / "home")


def test_a_spend_composes_nothing(ledger, monkeypatch):
    claim = ledger.reserve(**plan("one"))
    monkeypatch.setattr("pipeline.ledger.composed_epsilon", lambda *_: pytest.fail("a spend must stay cheap"))
    ledger.spend(claim, 1)
    ledger.close(claim, 1)


# Databases.


def test_the_same_life_on_each_database(where):
    ledger = Ledger(where)
    one, two = (ledger.reserve(**plan(run, steps=20)) for run in ("one", "two"))
    for step in range(1, 6):
        ledger.spend(one, step)
    ledger.close(one, 5)
    again = Ledger(where)
    assert again.taken(one) == 5
    assert again.reserve(**plan("two", steps=20)) == two
    assert again.standing("people").epsilon_spent == pytest.approx(_by_steps(25), abs=1e-6)
    with pytest.raises(BudgetExhausted):
        again.reserve(**plan("three", steps=80))
    with pytest.raises(StageError, match="closed"):
        again.spend(one, 6)
    again.note("one", "release", {"name": "letters"})
    assert [entry.detail["name"] for entry in ledger.notes("release", "one")] == ["letters"]
    assert ledger.notes("deletion") == []
    assert ledger.budgets() == ["people"]
    assert ledger.verify() == again.head()
    assert ledger.head().entries == 9


def test_each_database_refuses_an_accidental_edit_and_an_edit_is_found(where):
    ledger = Ledger(where)
    ledger.reserve(**plan("one", steps=5))
    on_file = isinstance(where, Path)
    for statement in ("UPDATE entries SET steps = 3", "DELETE FROM entries"):
        with pytest.raises((IntegrityError, StageError), match="append-only"), ledger._database.write() as connection:
            connection.exec_driver_sql(statement)
    ledger.verify()
    with ledger._database.write() as connection:
        if on_file:
            connection.exec_driver_sql("DROP TRIGGER entries_no_update")
        else:
            connection.exec_driver_sql("ALTER TABLE entries DISABLE TRIGGER USER")
        connection.exec_driver_sql("UPDATE entries SET steps = 3")
    with pytest.raises(IntegrityError, match="Entry 1"):
        ledger.verify()


def test_postgresql_keeps_its_password_to_itself(monkeypatch):
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    pytest.importorskip("psycopg")
    with pytest.raises(StageError, match="cannot be used") as told:
        Ledger("postgresql://ann:s3cret@127.0.0.1:1/ledger?connect_timeout=2")
    assert "s3cret" not in str(told.value)
    assert "\n" not in str(told.value)
