"""What a study refuses before it reads a record."""

from __future__ import annotations

import pytest

from pipeline.errors import InputError, PolicyError
from pipeline.study import spec
from tests.study.conftest import make

PRIVATE = {"path": "data.jsonl", "max_tokens": 96, "held_out": 0.2}
CHARGED = {"data": PRIVATE, "charge_ledger": True, "epsilons": [8, 3]}


def loaded(folder, **changes):
    return spec.load(make(folder, **changes))


def test_the_bundled_spec_is_sound():
    bundled = spec.load(spec.bundled())
    bundled.check()
    assert bundled.data.is_public
    assert len(bundled.points()) == len(bundled.epsilons) * len(bundled.seeds)


def test_the_grid_is_every_model_seed_and_epsilon_once(tmp_path):
    models = ["nano", {"name": "b", "ref": "nano", "train": {"steps": 5}}]
    found = loaded(tmp_path, models=models, seeds=[0, 1], epsilons=["none", 8, 3]).points()
    assert len(found) == len(set(found)) == 12
    wanted = {(m, e, s) for m in ("nano", "b") for e in (None, 8, 3) for s in (0, 1)}
    assert {(p.model, p.epsilon, p.seed) for p in found} == wanted


def test_a_model_may_train_in_its_own_way(tmp_path):
    found = loaded(tmp_path, models=["nano", {"name": "b", "ref": "nano", "train": {"steps": 5}}])
    assert [found.rules(point).train.steps for point in found.points()] == [3, 3, 5, 5]


class TestPrivateData:
    def test_is_refused_where_nothing_is_charged(self, tmp_path):
        with pytest.raises(InputError, match="declared public"):
            loaded(tmp_path, data=PRIVATE, epsilons=[8]).check()

    def test_is_refused_without_noise_whatever_is_charged(self, tmp_path):
        with pytest.raises(InputError, match="no ε that a budget could be charged with"):
            loaded(tmp_path, **CHARGED | {"epsilons": ["none", 8]}).check()

    def test_may_be_studied_when_every_cell_is_charged(self, tmp_path):
        loaded(tmp_path, **CHARGED).check()  # the control of the two above

    def test_is_never_promised_less_than_its_policy_promises(self, tmp_path):
        with pytest.raises(PolicyError, match="promises 8"):
            loaded(tmp_path, **CHARGED | {"epsilons": [8.5]}).check()

    def test_is_not_public_because_nobody_says_so(self, tmp_path):
        with pytest.raises(PolicyError, match="name the person"):
            loaded(tmp_path, data=PRIVATE | {"public": True})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilons": [8, 8]}, "twice"),
        ({"models": ["nano", "nano"]}, "same name"),
        ({"models": [{"name": "x"}]}, "exactly one of ref and pretrain"),
        ({"seed": 3}, "unknown"),
        ({"epsilons": [-1]}, "greater than 0"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, words):
    with pytest.raises(PolicyError, match=words):
        loaded(tmp_path, **changes)


def test_a_key_that_no_policy_has_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"train\.stepps"):
        loaded(tmp_path, train={"stepps": 3}).check()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        spec.load(tmp_path / "none.yaml")
