"""`hushtune scrub` and `hushtune recall`, on real text."""

import json
import stat

import pytest

from pipeline import cli

MAIL = "ann.sample@private-mail.example"
CARD = "4111 1111 1111 1111"


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes.jsonl"
    records = [
        {"id": "a", "unit": "u1", "body": f"Write to {MAIL} please."},
        {"id": "b", "unit": "u2", "body": f"Paid by card {CARD} twice."},
        {"id": "c", "unit": "u2", "body": "The printer is out of paper."},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scrub_writes_records_and_spans_and_nothing_else(notes, tmp_path, capsys):
    output, spans = tmp_path / "out.jsonl", tmp_path / "spans.jsonl"
    call = ["scrub", str(notes), "--text-column", "body", "--output", str(output), "--spans", str(spans), "--json"]
    assert cli.main(call) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out.splitlines()[-1])
    assert (content["records"], content["changed"]) == (3, 2)
    assert content["entities"]["EMAIL_ADDRESS"] == 1
    assert MAIL in notes.read_text()  # the control
    for text in (output.read_text(), spans.read_text(), captured.out, captured.err):
        assert MAIL not in text
        assert CARD not in text
    assert [record["id"] for record in lines(output)] == ["a", "b", "c"]
    assert lines(output)[2]["text"] == "The printer is out of paper."
    (span,) = lines(spans)[0]["spans"]
    assert f"Write to {MAIL} please."[span["start"] : span["end"]] == MAIL
    assert stat.S_IMODE(output.stat().st_mode) == stat.S_IMODE(spans.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.jsonl", "out.jsonl", "spans.jsonl"]


def test_scrub_refuses_a_folder_that_is_not_there(notes, tmp_path, capsys):
    call = ["scrub", str(notes), "--text-column", "body", "--output", str(tmp_path / "no" / "out.jsonl")]
    assert cli.main(call) == 2
    assert "make it" in capsys.readouterr().err


def test_scrub_that_fails_leaves_nothing(notes, tmp_path, capsys):
    notes.write_text(notes.read_text() + '{"id": "d", "body": ')
    call = ["scrub", str(notes), "--text-column", "body", "--output", str(tmp_path / "out.jsonl")]
    assert cli.main(call) == 2
    assert "line 4" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.jsonl"]


def test_recall_counts_what_is_found_and_what_is_missed(tmp_path, capsys):
    text = f"Write to {MAIL} please."
    gold = [
        {"text": text, "spans": [{"start": 9, "end": 9 + len(MAIL), "label": "EMAIL_ADDRESS"}]},
        {"text": "The code word is xylophone.", "spans": [{"start": 17, "end": 26, "label": "SECRET"}]},
    ]
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in gold))
    assert cli.main(["recall", str(path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = {row["label"]: (row["spans"], row["spans_found"]) for row in content["labels"]}
    assert found == {"EMAIL_ADDRESS": (1, 1), "SECRET": (1, 0)}
    assert cli.main(["recall", str(path)]) == 0
    assert "tokens: recall" in capsys.readouterr().out


def test_columns_are_dropped_kept_scrubbed_and_hashed_by_the_policy(tmp_path, capsys):
    data, rules, output = tmp_path / "people.csv", tmp_path / "rules.yaml", tmp_path / "out.jsonl"
    data.write_text(
        f"text,clinic,note,number,secret\nShe rang.,north,Write to {MAIL},A1,x\nHe rang.,south,fine,A1,y\nOk.,,,B2,z\n"
    )
    rules.write_text("extends: base\ndata:\n  columns: {clinic: keep, note: scrub, number: hash, secret: drop}\n")
    call = ["scrub", str(data), "--policy", str(rules), "--output", str(output), "--home", str(tmp_path / "home")]
    assert cli.main(call) == 0
    first, second, third = lines(output)
    assert [row["clinic"] for row in (first, second, third)] == ["north", "south", ""]
    assert [first["note"], second["note"], third["note"]] == ["Write to <EMAIL_ADDRESS>", "fine", ""]
    assert first["number"] == second["number"] != third["number"]
    assert "A1" not in output.read_text()
    assert all("secret" not in row for row in (first, second, third))
    assert stat.S_IMODE((tmp_path / "home" / "keys" / "scrub.key").stat().st_mode) == 0o600


def test_a_column_that_is_not_there_is_named(tmp_path, capsys):
    data, rules = tmp_path / "people.csv", tmp_path / "rules.yaml"
    data.write_text("text,clinic\nShe rang.,north\n")
    rules.write_text("extends: base\ndata:\n  columns: {ward: keep}\n")
    assert cli.main(["scrub", str(data), "--policy", str(rules), "--output", str(tmp_path / "out.jsonl")]) == 2
    assert "ward" in capsys.readouterr().err


def test_a_sample_for_review_and_back(notes, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    call = ["scrub", str(notes), "--text-column", "body", "--output", str(output), "--sample", "2", "--json"]
    assert cli.main(call) == 0
    page = tmp_path / "out.jsonl.review.html"
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["review"] == str(page)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    ticks = tmp_path / "ticks.json"
    records = [{"found": 2, "read": True, "wrong": [0], "missed": []}]
    ticks.write_text(json.dumps({"kind": "hushtune review/1", "digest": "d", "records": records}))
    assert cli.main(["recall", str(ticks), "--json"]) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (content["precision"], content["recall"]) == (0.5, 1.0)
    assert cli.main(["recall", str(ticks)]) == 0
    assert "1 wrong" in capsys.readouterr().out
