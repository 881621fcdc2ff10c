"""A word in every field of every input format, each stage failing in turn: it surfaces only where the policy keeps text."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests import formats, tiny
from tests.flows.line import ADDRESS, files, holding

TEXT, LABEL = "zqhiddenword", "zqhiddenlabel"  # in texts, and in ids and units
BREAKS = ("read", "probe", "scrub", "plant", "reserve", "train", "audit", "judge", "report", "publish", "nothing")
FORMATS = [(ending, shape) for ending in formats.ENDINGS for shape in ("text", "completion", "chat")
           if ending != ".txt" or shape == "text"]  # fmt: skip
CASES = [(BREAKS[at % len(BREAKS)], *FORMATS[at]) for at in range(len(FORMATS))]
QUICK = {("scrub", ".jsonl", "chat"), ("audit", ".csv", "text")}  # the others take a minute and a half
KEPT = {"corpus", "scrubbed", "planted", "evidence"}  # folders of a run that hold records


def row(index: int, shape: str) -> dict[str, Any]:
    """A record with the words in every field."""
    words = f"{tiny.sentence(index, 8)} {TEXT} write to {ADDRESS}"
    own: dict[str, Any] = {"text": words}
    if shape == "completion":
        own = {"prompt": words, "completion": f"{TEXT} {tiny.sentence(index + 7, 8)}"}
    elif shape == "chat":
        own = {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": f"{TEXT} babo"}]}
    return {"id": f"{LABEL}r{index}", "unit": f"{LABEL}u{index % 80}", "note": TEXT, **own}


def target(stage: str) -> tuple[Any, str]:
    """What a stage calls."""
    from flows import tasks

    return {
        "read": (tasks.corpora, "read"),
        "probe": (tasks, "write_probes"),
        "scrub": (tasks.scrubbing, "scrub"),
        "plant": (tasks, "plant_canaries"),
        "reserve": (tasks, "calibrate"),
        "train": (tasks, "train_adapter"),
        "audit": (tasks.attacks, "audit"),
        "judge": (tasks.gates, "judge"),
        "report": (tasks.reports, "build"),
        "publish": (tasks.releases, "publish"),
    }[stage]


def broken(*_: object, **__: object) -> None:
    """Fails as libraries do: with text in its message, and in that of the error behind it."""
    try:
        raise LookupError(f"no {TEXT} of {LABEL}")
    except LookupError as error:
        raise ValueError(f"bad record: dear {TEXT}, {LABEL}") from error


@pytest.mark.parametrize(
    ("stage", "ending", "shape"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in CASES],
)
def test_a_word_in_any_field_surfaces_nowhere(
    stage, ending, shape, hushtune, place, tmp_path, capfd, caplog, monkeypatch, prefect_home
):
    caplog.set_level(logging.DEBUG)
    data = formats.write(tmp_path / f"data{ending}", [row(index, shape) for index in range(320)])
    home = tmp_path / "home"
    if stage != "nothing":
        monkeypatch.setattr(*target(stage), broken)
    code = hushtune(["run", str(data), "--policy", str(place / "open.yaml"), "--home", str(home), "--json"])
    printed = "".join(capfd.readouterr())
    assert code == (0 if stage == "nothing" else 1), printed
    for word in (TEXT, LABEL):
        assert word not in printed + caplog.text
        assert holding(prefect_home, word) == []
    (run,) = (home / "runs").iterdir()
    for path in {*holding(home, TEXT), *holding(home, LABEL)}:
        inside = path.relative_to(run).parts  # nothing outside of the run's folder
        assert inside[0] in KEPT or inside == ("traceback.txt",), inside
    assert TEXT not in "".join(path.read_text() for path in run.rglob("spans.jsonl"))
    assert {path.relative_to(run).parts[0] for path in holding(run, ADDRESS)} <= {"corpus"}
    reports = [path for path in files(home) if path.name.startswith("report.") and path.suffix in (".json", ".html")]
    assert bool(reports) == (stage in ("publish", "nothing"))
    assert not {*holding(home, TEXT)} & {*reports}
    if stage not in ("read", "nothing"):  # the control: there was something to leak
        assert TEXT in (run / "traceback.txt").read_text()
        assert holding(run / "corpus", TEXT)


def test_every_stage_and_every_format_is_among_the_cases():
    assert {stage for stage, *_ in CASES} == set(BREAKS)
    assert {tuple(rest) for _, *rest in CASES} == set(FORMATS)
    assert set(CASES) >= QUICK
    assert TEXT in json.dumps(row(0, "chat"))
