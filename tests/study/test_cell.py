"""A cell is the ordinary stages and nothing else, is charged where data is private, and shows a changed figure."""

from __future__ import annotations

import json

import pytest

from pipeline import audit, retention
from pipeline.canaries import Planted
from pipeline.composition import composed_epsilon
from pipeline.errors import BudgetExhausted, IntegrityError
from pipeline.folders import digest_file, finished
from pipeline.ledger import Ledger
from pipeline.study import cell, grid, spec
from pipeline.train.loop import NO_PRIVACY, Trained
from pipeline.train.mechanism import calibrate
from tests.study.conftest import SENTINEL, make


def key(done, point):
    return cell.inputs(done.spec, point, done.base, digest_file(cell.source(done.spec)))


@pytest.mark.parametrize("index", [0, 1], ids=["no DP", "private"])
def test_a_cell_says_what_the_stages_say_when_called_directly(done, tmp_path, index):
    point = done.spec.points()[index]
    name = key(done, point)
    found = cell.stored(done.folder, name)
    work = done.folder / "work" / name[:32]
    planted, trained = finished(work / "planted", Planted), finished(work / "trained", Trained)
    rules = done.spec.rules(point)
    ready = cell.prepare(done.spec, rules, done.folder / "data", done.home)
    assert trained.mechanism == calibrate(rules, planted.train_units)
    evidence = audit.audit(
        planted, trained, ready.scrubbed, rules, tmp_path / "evidence", registered=False, claimed=bool(index)
    )
    for figure, number in found.figures.items():
        direct = evidence.figures[figure]
        assert (number.value, number.low, number.high, number.n) == (direct.value, direct.low, direct.high, direct.n)
    assert found.exposure == {times: evidence.series[f"exposure.copies_{times}"] for times in found.exposure}
    assert sum(map(len, found.exposure.values())) == 8  # every personal secret, in or out
    assert found.spent == (trained.epsilon if index else None)
    assert (trained.epsilon == NO_PRIVACY) is not bool(index)
    assert (found.noise_multiplier == 0) is not bool(index)


def test_both_kinds_of_cell_share_schedule_and_sampling(done):
    plain, private = (cell.stored(done.folder, key(done, point)) for point in done.spec.points())
    assert plain.steps == private.steps == 3
    assert plain.expected_batch == private.expected_batch == 16
    assert plain.units == private.units


def test_the_file_of_a_cell_holds_no_text(done):
    for path in (done.folder / "cells").iterdir():
        assert SENTINEL not in path.read_text()
    held = done.folder / "data" / "corpus" / "records.jsonl"
    assert SENTINEL in held.read_text()  # the control: there was something to leak
    assert held.parent.parent.stat().st_mode & 0o077 == 0


def test_a_changed_figure_is_caught(done, tmp_path):
    found = cell.stored(done.folder, key(done, done.spec.points()[0]))
    path = cell.keep(tmp_path, found)
    assert cell.stored(tmp_path, found.inputs) == found
    changed = json.loads(path.read_text())
    changed["cell"]["figures"]["utility.perplexity"]["value"] /= 2
    path.write_text(json.dumps(changed))
    with pytest.raises(IntegrityError, match="was changed"):
        cell.stored(tmp_path, found.inputs)


def test_the_name_of_a_cell_depends_on_what_its_figures_depend_on(done):
    points = done.spec.points()
    data = digest_file(cell.source(done.spec))
    known = {key(done, point) for point in points}
    assert len(known) == 2
    other = done.spec.model_copy(update={"train": done.spec.train | {"steps": 4}})
    assert cell.inputs(other, points[0], done.base, data) not in known
    assert cell.inputs(done.spec, points[0], done.base, "other data") not in known
    assert cell.inputs(done.spec, points[0], done.base.model_copy(update={"digest": "other"}), data) not in known
    dearer = done.spec.model_copy(update={"watts": 99.0, "parallel": 2})  # what is only said of a cell does not make another
    assert cell.inputs(dearer, points[0], done.base, data) in known


def private(folder, **changes):
    data = {"path": "data.jsonl", "max_tokens": 96, "held_out": 0.2}
    return spec.load(make(folder, data=data, charge_ledger=True, epsilons=[8], **changes))


def test_a_cell_on_private_data_is_charged_once_and_leaves_no_weights(tmp_path):
    asked, home = private(tmp_path), tmp_path / "home"
    folder = grid.start(asked, home)
    base, point = grid.base(asked, "tiny", folder, home), asked.points()[0]
    found = cell.run(asked, point, base, folder, home)
    ledger = Ledger(home)
    budget = asked.rules(point).privacy.lifetime.budget
    (charge,) = ledger.charges(budget)
    assert [(entry.kind, entry.steps) for entry in ledger.history(budget)] == [
        ("reserve", 0), ("spend", 1), ("spend", 2), ("spend", 3), ("close", 3),
    ]  # fmt: skip
    assert ledger.history(budget)[0].detail["noise_multiplier"] == found.noise_multiplier > 0
    assert found.spent == pytest.approx(composed_epsilon([charge.claim.mechanism], found.delta), rel=1e-3)
    assert found.run is not None
    run = home / "runs" / found.run
    assert run.stat().st_mode & 0o077 == 0
    assert not list(run.rglob("*.safetensors"))
    assert {note.detail["path"] for note in ledger.notes("deleted")} == {"trained/adapter"}
    assert found.figures["exposure.mean_bits"].failed == ()  # its manifest was in the ledger before the first step
    again = cell.run(asked, point, base, folder, home)  # whose file was lost: it finds its reservation and spends no more
    assert again.run == found.run
    assert ledger.charges(budget) == [charge]
    assert retention.due(home, ledger) == []


def test_a_budget_that_does_not_hold_a_cell_stops_it_before_its_first_step(tmp_path):
    (tmp_path / "poor.yaml").write_text(
        "extends: base\nname: poor\ndescription: Nearly nothing left.\n"
        "privacy: {lifetime: {budget: poor, epsilon: 0.5, delta: 1.0e-4}}\n"
    )
    asked, home = private(tmp_path, policy=str(tmp_path / "poor.yaml")), tmp_path / "home"
    folder = grid.start(asked, home)
    with pytest.raises(BudgetExhausted):
        cell.run(asked, asked.points()[0], grid.base(asked, "tiny", folder, home), folder, home)
    assert Ledger(home).history("poor") == []
    assert not (folder / "cells").exists()
