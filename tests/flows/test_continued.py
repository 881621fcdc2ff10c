"""A run that learns from public text first, on data with prompts: what it releases works as any other release does."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pipeline import models
from tests import tiny
from tests.flows import line
from tests.flows.line import OPEN_GATES, holding

PUBLIC, PRIVATE = "qzpublicword", "qzprivateword"


@pytest.fixture(scope="module")
def made(place, prefect_home, tmp_path_factory):
    """A folder with the policy and data of such a run."""
    folder = tmp_path_factory.mktemp("continued")
    with (folder / "public.jsonl").open("w") as file:
        for seed in range(60):
            file.write(json.dumps({"text": f"{PUBLIC} {tiny.sentence(seed, 20)}"}) + "\n")
    with (folder / "letters.jsonl").open("w") as file:
        for seed in range(260):
            prompt, completion = f"{PRIVATE} {tiny.sentence(1000 + seed, 6)}", f" {tiny.sentence(2000 + seed, 6)}"
            file.write(json.dumps({"id": f"r{seed}", "prompt": prompt, "completion": completion}) + "\n")
    rules = line.policy(place) | {
        "name": "continued",
        "continued_pretraining": {"public_data": str(folder / "public.jsonl"), "steps": 6, "max_tokens": 32, "rank": 4},
        "gates": OPEN_GATES
        | {
            "answers": {
                "figure": "utility.rouge_l",
                "judge": "high",
                "at_most": 0.99,
                "why": "a test's rule",
                "owner": "tester",
            }
        },
    }
    rules["audit"] = rules["audit"] | {"completion_records": 30, "completion_tokens": 6, "prefix_tokens": 4, "suffix_tokens": 4}
    line.write(folder / "rules.yaml", rules)
    return folder


@pytest.fixture
def call(hushtune, capsys):
    """Run a command; its exit code and what it printed."""

    def run(*arguments):
        code = hushtune([*arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def released(made, call):
    """The run's last JSON object; it is run once."""
    kept = made / "outcome.json"
    if not kept.exists():
        run = [
            "run",
            str(made / "letters.jsonl"),
            "--policy",
            str(made / "rules.yaml"),
            "--home",
            str(made / "home"),
            "--json",
        ]
        code, out, error = call(*run)
        assert code == 0, error
        assert "pretrain" in error
        kept.write_text(out.splitlines()[-1])
    return json.loads(kept.read_text())


def test_the_report_tells_the_gain_of_public_text_and_what_is_answered(released, made):
    assert released["gates"]["answers"]["passed"]
    content = json.loads((made / "home" / "releases" / "letters" / "1" / "report.json").read_text())
    section = content["utility"]
    for key in ("base_perplexity", "public_perplexity", "perplexity", "public_ratio"):
        assert section[key]["value"] > 0
    ratio = section["perplexity"]["value"] / section["public_perplexity"]["value"]
    assert section["perplexity_ratio"]["value"] == pytest.approx(ratio)
    assert section["completions"]["rows"][1]["tuned"]["n"] == 30
    assert "public.jsonl" in section["public"]
    statement = json.loads((made / "home" / "runs" / released["run"] / "trained" / "privacy.json").read_text())
    assert statement["continued_pretraining"]["records"] == 60
    assert PRIVATE not in json.dumps(content)
    assert all(path.is_relative_to(made / "home" / "runs") for path in holding(made / "home", PRIVATE))


def test_the_release_is_one_adapter_over_the_stock_base(released, made, place, call):
    home = ["--home", str(made / "home")]
    release = made / "home" / "releases" / "letters" / "1"
    assert call("verify", "letters", *home)[0] == 0
    code, out, error = call("generate", "letters", "--prompt", "baba", "--max-new-tokens", "4", "--json", *home)
    assert code == 0, error
    assert isinstance(json.loads(out.splitlines()[-1])["text"], str)
    assert call("models", "export", "letters", "--output", str(made / "whole"), *home)[0] == 0
    config = json.loads((release / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 12  # 4 public and 8 private
    # By hand: stock weight + B A, in the float type of the export.
    name = "model.layers.1.self_attn.q_proj"
    adapter, stock = load_file(release / "adapter_model.safetensors"), load_file(place / "model" / "model.safetensors")
    rows, columns = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    assert not torch.equal(rows[:4], torch.zeros_like(rows[:4]))
    assert not torch.equal(columns[:, 4:], torch.zeros_like(columns[:, 4:]))
    whole = load_file(made / "whole" / "model.safetensors")[f"{name}.weight"]
    assert torch.allclose(whole.float(), stock[f"{name}.weight"] + columns @ rows, atol=1e-2)


def test_an_audit_again_finds_the_same_figures(released, made, call):
    code, out, error = call("audit", "letters", "--json", "--home", str(made / "home"))
    assert code == 0, error
    again = json.loads(out.splitlines()[-1])["figures"]
    before = json.loads((made / "home" / "runs" / released["run"] / "evidence" / "evidence.json").read_text())["figures"]
    for name in ("utility.public_perplexity", "utility.rouge_l", "utility.perplexity_ratio", "epsilon.lower_bound"):
        assert again[name]["value"] == pytest.approx(before[name]["value"])


def test_the_next_run_finds_the_public_adapter(released, made, place):
    folders = [path for path in (made / "home" / "models" / "continued").iterdir() if path.is_dir()]
    assert len(folders) == 1
    base = models.resolve(str(place / "model"), made / "home")
    stage = json.loads((folders[0] / "stage.json").read_text())["value"]
    adapted = base.model_copy(update={"adaptation": models.Adaptation.model_validate(stage)})
    assert models.load(adapted)[0].num_parameters() == models.load(base)[0].num_parameters()


def test_a_private_record_in_the_public_text_stops_the_run_before_it_spends(made, tmp_path, call):
    (tmp_path / "public.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    with (tmp_path / "public.jsonl").open("a") as file, (made / "letters.jsonl").open() as letters:
        content = json.loads(next(letters))
        file.write(json.dumps({"text": f"before {content['prompt']}{content['completion']} after"}) + "\n")
    rules = (made / "rules.yaml").read_text().replace(str(made / "public.jsonl"), str(tmp_path / "public.jsonl"))
    (tmp_path / "rules.yaml").write_text(rules)
    run = ["run", str(made / "letters.jsonl"), "--policy", str(tmp_path / "rules.yaml"), "--home", str(tmp_path / "home")]
    code, _, error = call(*run)
    assert code == 2
    assert "1 records of the data stand in" in error
    assert PRIVATE not in error
    assert not (tmp_path / "home" / "ledger.db").exists()
