"""`hushtune models` on tiny models."""

import json

import pytest

from pipeline import cli, models
from pipeline.policy import Lora
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
    assert found["small"]["here"]
    assert found["nano"]["here"]
    assert not found["smollm2-360m"]["here"]
    assert all(base["memory"] > 0 and base["tokens_per_second"] > 0 and not base["measured"] for base in found.values())


def test_list_says_how_to_fetch_what_is_not_here(home, capsys):
    assert cli.main(["models", "list", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["model", "weights"]
    assert next(line for line in lines if line.startswith("qwen2.5-0.5b")).endswith("hushtune models pull qwen2.5-0.5b")


def test_pull_names_what_it_cannot_fetch(home, capsys):
    assert cli.main(["models", "pull", "gigantic", "--home", str(home)]) == 2
    assert "There is no base model gigantic to pull" in capsys.readouterr().err
    assert sorted(path.name for path in (home / "models").iterdir()) == ["small"]


def test_pull_of_what_is_here_asks_nobody(home, capsys):
    (home / "models" / "small" / "pull.json").write_text("{}")
    assert cli.main(["models", "pull", "small", "--home", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["name"] == "small"


def test_export_writes_a_folder_that_generates(home, tmp_path, capsys):
    base = models.resolve("small", home)
    models.save_adapter(models.adapt(models.load(base)[0], Lora(), 0), tmp_path / "adapter")
    call = ["models", "export", str(tmp_path / "adapter"), "--output", str(tmp_path / "whole"), "--home", str(home)]
    assert cli.main([*call, "--base-model", "small"]) == 2
    assert "nothing vouches for it" in capsys.readouterr().err
    assert cli.main([*call, "--unverified"]) == 2
    assert "name it by --base-model" in capsys.readouterr().err
    assert cli.main([*call, "--base-model", "small", "--unverified", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] > 0
    assert cli.main(["generate", str(tmp_path / "whole"), "--max-new-tokens", "3", "--home", str(home)]) == 0


def test_pretrain_makes_a_model_that_generates(home, tmp_path, capsys):
    texts = [tmp_path / f"{seed}.txt" for seed in range(120)]
    for seed, path in enumerate(texts):
        path.write_text(tiny.sentence(seed, 40))
    folder = home / "models" / "own"
    (tmp_path / "own.yaml").write_text("data: [{files: [none.txt]}]\narchitecture: {context: 32}")
    sizes = ["--layers", "1", "--width", "16", "--heads", "2", "--vocab", "300", "--tokens", "2000"]
    assert (
        cli.main(
            ["models", "pretrain", str(tmp_path / "own.yaml"), *map(str, texts), "--output", str(folder), *sizes, "--json"]
        )
        == 0
    )
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
    assert "width 30" in capsys.readouterr().err
