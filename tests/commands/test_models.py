"""`hushtune models` and `hushtune generate` on tiny models."""

import json

import pytest

from pipeline import cli
from tests import tiny


@pytest.fixture
def home(tmp_path):
    tiny.save(tmp_path / "home" / "models" / "small")
    return tmp_path / "home"


def test_list_shows_what_is_here(home, capsys):
    assert cli.main(["models", "list", "--home", str(home), "--json"]) == 0
    found = {base["name"]: base for base in json.loads(capsys.readouterr().out)}
    assert found["small"]["context"] == 128
    assert found["small"]["parameters"] > 0
    assert "nano" in found


def test_pretrain_makes_a_model_that_generates(home, tmp_path, capsys):
    texts = [tmp_path / f"{seed}.txt" for seed in range(120)]
    for seed, path in enumerate(texts):
        path.write_text(tiny.sentence(seed, 40))
    folder = home / "models" / "own"
    sizes = ["--layers", "1", "--width", "16", "--heads", "2", "--vocab", "300", "--context", "32", "--tokens", "2000"]
    assert cli.main(["models", "pretrain", *map(str, texts), "--output", str(folder), *sizes, "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["folder"] == str(folder)
    assert 0 < made["bits_per_byte"] < 20
    call = ["generate", "own", "--home", str(home), "--prompt", "baba", "--max-new-tokens", "5", "--json"]
    assert cli.main(call) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["prompt"] == "baba"
    assert cli.main(call) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first  # greedy


def test_pretrain_refuses_a_width_that_does_not_fit(tmp_path, capsys):
    call = ["models", "pretrain", "x.txt", "--output", str(tmp_path / "m"), "--width", "30", "--heads", "4"]
    assert cli.main(call) == 2
    assert "--width 30" in capsys.readouterr().err


@pytest.mark.parametrize("decoding", ["greedy", "sample", "beam"])
def test_generate_knows_three_decodings(decoding, home, capsys):
    call = ["generate", "small", "--home", str(home), "--decoding", decoding, "--seed", "3", "--max-new-tokens", "4"]
    assert cli.main(call) == 0
    first = capsys.readouterr().out
    assert cli.main(call) == 0
    assert capsys.readouterr().out == first


def test_generate_names_an_unknown_model(home, capsys):
    assert cli.main(["generate", "nobodys-model", "--home", str(home)]) == 2
    assert "nobodys-model" in capsys.readouterr().err
