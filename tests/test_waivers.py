"""Waivers: who may give which, that they are signed and expire, and that one that was changed stops everything."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from pipeline import cli, waivers
from pipeline import policy as policies
from pipeline.errors import IntegrityError, UsageError
from pipeline.gates import judge
from pipeline.ledger import Ledger
from tests.test_gates import POOR, good

TODAY = date(2030, 5, 17)
DEFAULT = policies.load("default")
GIVEN = {"by": "Ada Lovelace", "why": "A pilot for ten readers.", "days": 10, "today": TODAY}


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.delenv("HUSHTUNE_LEDGER_URL", raising=False)
    monkeypatch.delenv("HUSHTUNE_SIGNING_KEY", raising=False)


def test_a_waiver_is_signed_kept_noted_and_lifts_its_gate(tmp_path):
    made, path = waivers.waive(tmp_path, DEFAULT, "utility", **GIVEN)
    ledger = Ledger(tmp_path)
    assert waivers.load(tmp_path, DEFAULT, ledger) == [made]
    assert waivers.load(tmp_path, policies.load("strict"), ledger) == []
    assert judge(DEFAULT, good(**POOR), waivers.load(tmp_path, DEFAULT, ledger), TODAY).status == "released"
    late = TODAY + timedelta(days=11)
    assert judge(DEFAULT, good(**POOR), waivers.load(tmp_path, DEFAULT, ledger), late).status == "rejected"
    assert Ledger(tmp_path).notes("waiver")[0].detail["why"] == "A pilot for ten readers."
    for place in (100, 200, -10):
        sound = path.read_bytes()
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(IntegrityError, match=path.name):
            waivers.load(tmp_path, DEFAULT, ledger)
        path.write_bytes(sound)


@pytest.mark.parametrize(
    ("gate", "changes", "match"),
    [
        ("membership", {}, "does not let gate membership be waived"),
        ("nothing", {}, "has no gate nothing"),
        ("utility", {"by": " "}, "--by"),
        ("utility", {"why": "no"}, "--why"),
        ("utility", {"days": 0}, "1 to 365 days"),
        ("utility", {"days": 366}, "1 to 365 days"),
    ],
)
def test_a_waiver_that_cannot_be_given(tmp_path, gate, changes, match):
    with pytest.raises(UsageError, match=match):
        waivers.waive(tmp_path, DEFAULT, gate, **GIVEN | changes)
    assert not (tmp_path / "waivers").exists()


def test_a_waiver_that_was_given_beside_the_ledger_counts_for_nothing(tmp_path, monkeypatch):
    """Signed by the organisation's key in a home of one's own, with a date of one's own, and copied here."""
    waivers.waive(tmp_path, DEFAULT, "utility", **GIVEN)
    aside = tmp_path / "aside"
    monkeypatch.setenv("HUSHTUNE_SIGNING_KEY", str(tmp_path / "keys" / "release.key"))
    _, path = waivers.waive(aside, DEFAULT, "utility", **GIVEN | {"why": "Because I say so."})
    assert len(waivers.load(aside, DEFAULT, Ledger(aside))) == 1  # the control: there it counts
    path.rename(tmp_path / "waivers" / path.name)
    with pytest.raises(IntegrityError, match="does not note the waiver"):
        waivers.load(tmp_path, DEFAULT, Ledger(tmp_path))


def test_the_command(tmp_path, capsys):
    call = [
        "policy",
        "waive",
        "utility",
        "--policy",
        "default",
        "--by",
        "Ada",
        "--why",
        "A pilot for ten readers.",
        "--days",
        "3",
    ]
    assert cli.main([*call, "--home", str(tmp_path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["gate"], content["policy"]) == ("utility", DEFAULT.digest)
    assert len(waivers.load(tmp_path, DEFAULT, Ledger(tmp_path))) == 1


def test_a_report_prints_waivers_first(tmp_path):
    from pipeline.report import render
    from tests.report import sample

    values = sample.stages()
    gate = next(gate for gate in values["verdict"]["gates"] if gate["name"] == "utility")
    made, _ = waivers.waive(tmp_path, DEFAULT, "utility", **GIVEN)
    gate |= {"passed": False, "tolerated": True, "waiver": made.model_dump(mode="json")}
    content = sample.build(**{"policy": DEFAULT, **values})
    page = render(content)
    first = page.index("Waived by Ada Lovelace on 2030-05-17, until 2030-05-27")
    assert page.index("<h1") < first < page.index("<h2")  # in the first section
    assert "utility (waived)" in content["verdict"]["sentence"].lower() or "(waived)" in content["verdict"]["sentence"]
    assert content["verdict"]["failed"] == 0
