"""`hushtune generate` and `hushtune synthesize` on tiny models."""

import json

import pytest

from pipeline import cli, models
from pipeline.policy import Lora
from tests import tiny


@pytest.fixture
def home(tmp_path):
    tiny.save(tmp_path / "home" / "models" / "small")
    return tmp_path / "home"


@pytest.fixture
def hushtune(home, capsys):
    """Run a command in this home; gives the exit code, what it said, and the last line as JSON where it is."""

    def call(*arguments):
        code = cli.main([*map(str, arguments), "--home", str(home)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.mark.parametrize("decoding", ["greedy", "sample", "beam"])
def test_generate_knows_three_decodings(decoding, hushtune):
    call = ["generate", "small", "--decoding", decoding, "--seed", "3", "--max-new-tokens", "4"]
    assert hushtune(*call)[0] == 0
    assert hushtune(*call) == hushtune(*call)


def test_generate_names_an_unknown_model(hushtune):
    code, _, error = hushtune("generate", "nobodys-model")
    assert code == 2
    assert "nobodys-model" in error


def test_a_stream_prints_what_is_generated_at_once(hushtune):
    call = ["generate", "small", "--prompt", " baba", "--max-new-tokens", "12", "--decoding", "sample", "--seed", "1"]
    assert hushtune(*call, "--stream")[1] == hushtune(*call)[1]


def test_prompts_of_a_file_are_continued_in_order(hushtune, tmp_path):
    lines, rows = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_text(" baba\n\n bebe\n")
    rows.write_text('{"prompt": " baba"}\n{"prompt": " bebe"}\n')
    out = tmp_path / "out.jsonl"
    assert hushtune("generate", "small", "--prompts", lines, "--output", out, "--max-new-tokens", "4")[0] == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in written] == [" baba", " bebe"]
    code, said, _ = hushtune("generate", "small", "--prompts", rows, "--json", "--max-new-tokens", "4")
    assert code == 0
    assert json.loads(said.splitlines()[-1])["texts"] == written
    alone = json.loads(hushtune("generate", "small", "--prompt", " bebe", "--max-new-tokens", "4", "--json")[1])
    assert alone["text"] == written[1]["text"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompts", "p.txt", "--stream"], "leave --prompt and --stream out"),
        (["--output", "o"], "give --prompts as well"),
        (["--stream", "--json"], "leave --guard and --json out"),
        (["--prompts", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--temperature", "0"], "--temperature 0.0 is out of range"),
        (["--top-p", "1.5"], "--top-p 1.5 is out of range"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0 is out of range"),
        (["--max-new-tokens", "500"], "do not fit the model's context"),
        (["--chat", "--prompt", "hello"], "no chat template"),
    ],
)
def test_calls_that_cannot_be_are_refused_with_the_mend(flags, words, hushtune):
    code, _, error = hushtune("generate", "small", *flags)
    assert code == 2
    assert words in error


def test_prompts_that_are_none_are_named_by_their_line(hushtune, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x"}\n{"text": "secret"}\n')
    code, _, error = hushtune("generate", "small", "--prompts", path)
    assert code == 2
    assert "line 2" in error
    assert "secret" not in error
    path.write_text("\n")
    assert "holds no prompt" in hushtune("generate", "small", "--prompts", path)[2]


def test_a_bare_adapter_is_loaded_only_when_told(home, hushtune, tmp_path):
    base = models.resolve("small", home)
    folder = models.save_adapter(models.adapt(models.load(base)[0], Lora(), 0), tmp_path / "adapter")
    code, _, error = hushtune("generate", folder, "--base-model", "small")
    assert (code, "nothing vouches for it" in error) == (2, True)
    assert hushtune("generate", folder, "--base-model", "small", "--unverified", "--max-new-tokens", "2")[0] == 0


def test_the_guard_says_what_it_replaced(hushtune):
    code, said, _ = hushtune("generate", "small", "--guard", "--max-new-tokens", "4", "--json")
    assert code == 0
    assert json.loads(said)["guard"]["texts"] == 1
    assert "(guard: " in hushtune("generate", "small", "--guard", "--max-new-tokens", "4")[1]


def test_synthesize_writes_as_many_records_as_asked_for_with_a_report(hushtune, tmp_path):
    out = tmp_path / "corpus.jsonl"
    call = ["synthesize", "small", "--count", "20", "--output", out, "--seed", "1", "--max-new-tokens", "8"]
    code, said, _ = hushtune(*call)
    assert code == 0
    first = out.read_text()
    assert len(first.splitlines()) == 20
    assert len(set(first.splitlines())) > 15
    assert "not measured" in said  # a base model has no run
    report = json.loads((tmp_path / "corpus.jsonl.report.json").read_text())
    assert (report["texts"], report["guarded"]["texts"], report["overlap"]) == (20, 20, None)
    assert hushtune(*call)[0] == 0
    assert out.read_text() == first
    assert hushtune(*call, "--no-guard", "--json")[0] == 0
    assert json.loads((tmp_path / "corpus.jsonl.report.json").read_text())["guarded"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--count", "0"], "asks for no record"), (["--count", "2"], "does not exist: make it")],
)
def test_a_corpus_that_cannot_be_written_is_refused_before_the_model_is_loaded(flags, words, hushtune, tmp_path):
    code, _, error = hushtune("synthesize", "small", *flags, "--output", tmp_path / "nowhere" / "out.jsonl")
    assert code == 2
    assert words in error


def test_texts_go_to_no_folder_that_is_not_there(hushtune, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("baba\n")
    code, _, error = hushtune("generate", "small", "--prompts", prompts, "--output", tmp_path / "nowhere" / "o.jsonl")
    assert (code, "does not exist: make it" in error) == (2, True)
