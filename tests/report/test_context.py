"""What stands beside the stages: kept once, checked before it is shown, the same when the report is written again."""

from __future__ import annotations

import itertools
import json

from pipeline.folders import write_json
from pipeline.report import context, render, samples
from pipeline.report.changes import differences, summary
from pipeline.train.mechanism import Mechanism
from tests.report import more, sample

MECHANISM = Mechanism(
    unit="record", units=5000, expected_batch=64, steps=24, noise_multiplier=0.8, clipping_norm=1.0, delta=1e-5
)


def test_the_course_rises_by_both_accountants_and_ends_at_epsilon():
    course = context.course(MECHANISM, 24)
    assert [row["steps"] for row in course][-1] == 24
    assert all(earlier["pld"] < later["pld"] for earlier, later in itertools.pairwise(course))
    assert all(abs(row["pld"] - row["prv"]) < 0.05 for row in course)
    exact = MECHANISM.epsilon(24)
    assert exact <= course[-1]["pld"] < exact + 0.01


def test_what_was_kept_is_not_made_again(tmp_path):
    write_json(tmp_path / "context.json", more.CONTEXT)
    assert context.keep(tmp_path, tmp_path, None, None, None, None) == more.CONTEXT
    assert context.load(tmp_path / "none") == {}


class TestPrevious:
    def release(self, home, version, run):
        folder = home / "releases" / "letters" / version
        folder.mkdir(parents=True)
        content = sample.released(facts=sample.FACTS | {"run": run})
        (folder / "report.json").write_text(json.dumps(content))

    def test_the_newest_release_of_another_run(self, tmp_path):
        self.release(tmp_path, "1", "letters-20250101-000000-aaaa")
        self.release(tmp_path, "2", "letters-20250201-000000-bbbb")
        run = tmp_path / "runs" / "letters-20250201-000000-bbbb"
        found = context.previous(tmp_path, run)
        assert (found["version"], found["run"]) == ("letters 1", "letters-20250101-000000-aaaa")
        assert context.previous(tmp_path, tmp_path / "runs" / "others-20250201-000000-bbbb") is None

    def test_a_damaged_release_is_passed_over(self, tmp_path):
        self.release(tmp_path, "1", "letters-20250101-000000-aaaa")
        (tmp_path / "releases" / "letters" / "2").mkdir()
        (tmp_path / "releases" / "letters" / "2" / "report.json").write_text("{}")
        assert context.previous(tmp_path, tmp_path / "runs" / "letters-20250301-000000-cccc")["version"] == "letters 1"

    def test_changes_are_told_with_both_values(self):
        before = summary(sample.released()) | {"version": "support 3"}
        before["figures"]["epsilon"], before["gates"]["membership"]["bound"] = 6.5, 0.531
        content = sample.released(facts=sample.FACTS | {"previous": before})
        rows = {row["title"]: (row["before"], row["after"]) for row in content["reproduce"]["changes"]["rows"]}
        assert rows == {"Privacy loss ε": (6.5, 7.983), "Membership attack, ratio to base (AUC)": (0.531, 0.557)}
        assert "Changes since support 3" in render(content)
        assert differences(summary(content), summary(content)) == []


class TestSamples:
    def test_a_model_that_is_not_released_shows_nothing(self):
        assert samples.withheld()["shown"] is False
        content = sample.released(facts=sample.FACTS | {"samples": samples.withheld()})
        assert "No text of the model is shown" in render(content)

    def test_a_withheld_text_is_said_to_be(self):
        page = render(sample.released())
        assert "“Please”: withheld, it repeats words of a record" in page
        assert "the parcel is on its way" in page


def test_a_reviewers_result_is_told_and_one_who_read_nothing_is_not():
    assert "A person read" in render(sample.released())
    facts = sample.FACTS | {"review": more.REVIEW | {"records": 0}}
    content = sample.released(facts=facts)
    assert content["scrubbing"]["review"] is None
    assert "A reviewer's result" in [row["title"] for row in content["verdict"]["missing"]]


class TestPast:
    def test_runs_are_stacked_in_order(self):
        rows = sample.released()["budget"]["past"]
        assert [(row["number"], row["before"], row["composed"]) for row in rows] == [
            (1, 0, 8.31),
            (2, 8.31, 10.02),
            (3, 10.02, 11.42),
        ]
        assert [row["this"] for row in rows] == [False, False, True]

    def test_a_long_past_keeps_the_newest_and_their_numbers(self):
        past = [more.PAST[0] | {"run": f"r{place}", "composed": 1.0 + place} for place in range(30)]
        rows = sample.released(facts=sample.FACTS | {"past": past})["budget"]["past"]
        assert (len(rows), rows[0]["number"], rows[0]["before"]) == (12, 19, 18.0)
