"""A data set that grows and is retrained every week, end to end, until its budget is used up."""

from __future__ import annotations

import json

import pytest

from pipeline import policy as policies
from pipeline.composition import Spend
from pipeline.ledger import Ledger
from pipeline.train.mechanism import calibrate
from tests.flows import line, whole
from tests.test_composition import independent

FIRST, MORE, DELTA = 200, 12, 5e-5


def planned(rules, week: int) -> Spend:
    """What the week's run will reserve: known beforehand, from the number of records alone."""
    records = FIRST + MORE * week
    units = records - round(rules.data.held_out * records) + rules.canaries.units(rules.privacy.unit)
    mechanism = calibrate(rules, units)
    return Spend(sampling_rate=mechanism.sampling_rate, noise_multiplier=mechanism.noise_multiplier, steps=mechanism.steps)


@pytest.mark.parametrize("weeks", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_weekly_retrains_spend_what_they_compose_to_until_nothing_is_left(
    hushtune, place, tmp_path, capsys, monkeypatch, weeks
):
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    home, data = tmp_path / "home", tmp_path / "mail.jsonl"
    few = {"count": 16, "guesses": 16, "repeated": 0, "prefix_tokens": 4}
    content = line.policy(place) | {"name": "weekly", "scrub": {"probes": 0, "entities": ["EMAIL_ADDRESS"]}, "canaries": few}
    content["privacy"] = {"epsilon": 2, "delta": DELTA, "lifetime": {"budget": "mail", "epsilon": 50, "delta": DELTA}}
    rules = policies.load(line.write(tmp_path / "loose.yaml", content))
    history = [planned(rules, week) for week in range(weeks + 1)]
    fits, burst = (independent(history[:count], DELTA) for count in (weeks, weeks + 1))
    content["privacy"]["lifetime"]["epsilon"] = round((fits + burst) / 2, 4)
    written = line.write(tmp_path / "weekly.yaml", content)

    def grow(week: int) -> None:
        data.write_text("".join(json.dumps(line.record(k)) + "\n" for k in range(FIRST + MORE * week)))

    for week in range(weeks):
        grow(week)
        attack = week in (0, weeks - 1)  # what comes after the budget is charged does not touch it
        ended = whole.run(home, data, written, "mail", f"week-{week}", attack=attack)
        assert ended in (("released", "rejected") if attack else ("charged",))
    ledger = Ledger(home)
    standing = ledger.standing("mail")
    assert [charge.claim.mechanism for charge in ledger.charges("mail")] == history[:-1]
    assert standing.epsilon_spent == pytest.approx(fits, abs=1e-6)
    assert standing.epsilon_spent < standing.epsilon_sum - 0.1
    alone = [independent([one.claim.mechanism], one.claim.delta) for one in ledger.charges("mail")]
    assert standing.epsilon_sum == pytest.approx(sum(alone), abs=1e-6)
    shown = ledger.cohorts("mail")
    assert [(one.units, len(one.runs)) for one in shown] == [(FIRST, weeks), *((MORE, weeks - k) for k in range(1, weeks))]
    assert shown[-1].epsilon_spent == pytest.approx(independent(history[-2:-1], DELTA), abs=1e-6)  # newest: its own week only
    ledger.verify()

    grow(weeks)
    capsys.readouterr()
    assert hushtune(["run", str(data), "--policy", str(written), "--home", str(home), "--name", "mail", "--json"]) == 4
    refused = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert refused["status"] == "budget_exhausted"
    assert f"{standing.epsilon_spent:.3f} is spent and {standing.epsilon_left:.3f} is left" in refused["error"]
    assert ledger.standing("mail") == standing
