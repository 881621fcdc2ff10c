"""`hushtune scrub` and `hushtune recall`, on real text."""

import json
import stat

import pytest

from pipeline import cli
from pipeline.commands.data import _workplace
from pipeline.scrub import _shards

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


LABELS = [
    {"id": "ada.lovelace@example.org", "unit": "Ada Lovelace", "text": "Hello."},
    {"id": "078-05-1121", "unit": "Ada Lovelace", "text": "Hello again."},
    {"id": "case-17", "unit": "agnieszka_kowalczyk", "text": "Bye."},
    {"id": "0f8fad5b-d9cb-469f-a165-70867728950e", "unit": "u0004", "text": "So."},
]


def scrubbed_labels(tmp_path, rules: str) -> tuple[list[dict], list[dict]]:
    data, policy, output = tmp_path / "data.jsonl", tmp_path / "rules.yaml", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in LABELS))
    policy.write_text(f"extends: base\n{rules}")
    call = ["scrub", str(data), "--policy", str(policy), "--output", str(output), "--spans", str(tmp_path / "s.jsonl")]
    assert cli.main([*call, "--home", str(tmp_path / "home")]) == 0
    return lines(output), lines(tmp_path / "s.jsonl")


def test_ids_and_units_that_name_somebody_do_not_leave(tmp_path, capsys):
    written, spans = scrubbed_labels(tmp_path, "")
    assert [row["id"] for row in written] == [row["id"] for row in spans]
    assert [row["id"] for row in written[2:]] == ["case-17", "0f8fad5b-d9cb-469f-a165-70867728950e"]
    assert written[0]["unit"] == written[1]["unit"] != written[2]["unit"]
    assert written[3]["unit"] == "u0004"
    text = json.dumps([written, spans]).lower()
    assert not any(word in text for word in ("ada", "lovelace", "078-05", "kowalczyk"))
    assert "5 ids and units" in capsys.readouterr().out


def test_a_rule_for_the_id_or_unit_column_decides(tmp_path):
    written, spans = scrubbed_labels(tmp_path, "data: {columns: {id: drop, unit: hash}}\n")
    assert [row["id"] for row in written] == [row["id"] for row in spans] == ["r000001", "r000002", "r000003", "r000004"]
    assert written[0]["unit"] == written[1]["unit"]
    assert len({row["unit"] for row in written}) == 3
    assert all(row["unit"].startswith("<COLUMN:") and len(row) == 3 for row in written)
    kept, _ = scrubbed_labels(tmp_path, "data: {columns: {id: keep, unit: keep}}\n")
    assert [(row["id"], row["unit"]) for row in kept] == [(row["id"], row["unit"]) for row in LABELS]


def test_a_try_that_breaks_off_is_gone_on_from_and_then_leaves_nothing(tmp_path, monkeypatch, capsys):
    data, output, done = tmp_path / "data.jsonl", tmp_path / "out.jsonl", []
    data.write_text("".join(json.dumps({"text": f"mail ann{n}@example.org"}) + "\n" for n in range(12)))
    (tmp_path / "rules.yaml").write_text("extends: base\nscrub: {detector: fast, rescan: 'off'}\n")
    call = ["scrub", str(data), "--policy", str(tmp_path / "rules.yaml"), "--output", str(output)]
    monkeypatch.setattr(_shards, "RECORDS", 4)
    work = _shards._run

    def break_off(shard, *rest):
        if len(done) == 2:
            raise MemoryError
        done.append(shard.name)
        return work(shard, *rest)

    monkeypatch.setattr(_shards, "_run", break_off)
    assert cli.main(call) == 1
    folder = tmp_path / ".out.jsonl.hushtune"
    assert str(folder) in capsys.readouterr().err
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not output.exists()
    monkeypatch.setattr(_shards, "_run", lambda shard, *rest: (done.append(shard.name), work(shard, *rest))[1])
    assert cli.main(call) == 0
    assert done == ["00000.jsonl", "00001.jsonl", "00002.jsonl"]  # none twice
    assert len(lines(output)) == 12
    assert not folder.exists()


def test_two_processes_do_not_write_one_output(notes, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    with _workplace(output):
        assert cli.main(["scrub", str(notes), "--text-column", "body", "--output", str(output)]) == 2
    assert "Another process" in capsys.readouterr().err


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
