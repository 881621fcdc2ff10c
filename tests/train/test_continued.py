"""Continued pretraining on public text: what is learned, found again, resumed, added up, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline import models
from pipeline.corpus import Corpus, Part, Record, save_records
from pipeline.errors import InputError, IntegrityError, PolicyError
from pipeline.models import Base
from pipeline.policy import ContinuedPretraining, Lora, Policy, load
from pipeline.train import checkpoint, continued
from tests import tiny


def policy(file: Path, **changes: object) -> Policy:
    section = {"public_data": str(file), "batch": 4, "max_tokens": 32, "learning_rate": 1e-2, "rank": 4} | changes
    return load("base").override(continued_pretraining=section)


def texts(first: int, count: int, length: int = 20) -> list[str]:
    return [tiny.sentence(seed, length) for seed in range(first, first + count)]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return models.resolve(str(tiny.save(tmp_path / "model")), tmp_path)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    path = tmp_path / "public.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in 10 * texts(0, 4)))
    return path


@pytest.fixture
def private(tmp_path: Path) -> Corpus:
    return corpus(tmp_path / "private", texts(1000, 20))


def corpus(folder: Path, own: list[str]) -> Corpus:
    folder.mkdir()
    save_records(folder / "records.jsonl", (Record(f"r{i}", f"r{i}", (Part("text", text),)) for i, text in enumerate(own)))
    return Corpus.model_construct(folder=folder)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([tiny.tokenizer()(tiny.sentence(7, 20))["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_public_text_is_learned_once_and_found_again(base: Base, public: Path, private: Corpus, tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(done: int, total: int, **_: object) -> None:
        seen.append(done)

    rules = policy(public, epochs=8)
    first = continued.adapt(base, rules, private, tmp_path / "run", tmp_path, progress=watch).adaptation
    assert first is not None
    assert first.loss[1] < first.loss[0] - 0.2
    assert (first.records, first.sharing, first.steps) == (40, 0, len(seen))
    assert first.tokens == len(seen) * 4 * 32
    seen.clear()
    (tmp_path / "other").mkdir()
    assert continued.adapt(base, rules, private, tmp_path / "other", tmp_path, progress=watch).adaptation == first
    assert not seen
    again = continued.adapt(base, policy(public, epochs=1), private, tmp_path / "other", tmp_path, progress=watch)
    assert seen  # the control: other settings make another adapter
    assert again.adaptation is not None
    assert again.adaptation.folder != first.folder
    assert continued.of_run(base, rules, tmp_path / "other") == again


def test_a_killed_training_goes_on_and_ends_where_it_would_have(
    base: Base, public: Path, private: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)  # one at every step
    rules, seen = policy(public, steps=12), []

    def killed(done: int, total: int, **_: object) -> None:
        seen.append(done)
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continued.adapt(base, rules, private, tmp_path / "run", tmp_path / "home", progress=killed)
    made = continued.adapt(base, rules, private, tmp_path / "run", tmp_path / "home", progress=killed)
    assert seen == [*range(1, 13)]
    whole = continued.adapt(base, rules, private, tmp_path / "run", tmp_path / "elsewhere")
    assert torch.equal(logits(models.load(made)[0]), logits(models.load(whole)[0]))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_released_is_the_sum_over_the_bare_base(family: str, public: Path, private: Corpus, tmp_path: Path) -> None:
    bare = models.resolve(str(tiny.save(tmp_path / "base", tiny.FAMILIES[family]())), tmp_path)
    adapted = continued.adapt(bare, policy(public, steps=4), private, tmp_path / "run", tmp_path)
    assert adapted.adaptation is not None
    model, _ = models.load(adapted)
    own = models.adapt(model, Lora(rank=2, alpha=6, layers=1), seed=0)  # on fewer layers than the public one
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(len(name)))
    wanted = logits(own)
    models.save_adapter(own, tmp_path / "sum", adapted.adaptation)
    models.save_adapter(own, tmp_path / "alone")
    for stands_on in (bare, adapted):
        assert torch.allclose(logits(models.with_adapter(stands_on, tmp_path / "sum")[0]), wanted, atol=1e-4)
    assert not torch.allclose(logits(models.with_adapter(bare, tmp_path / "alone")[0]), wanted, atol=1e-2)  # the control
    config = json.loads((tmp_path / "sum" / "adapter_config.json").read_text())
    assert config["r"] == 6
    assert str(tmp_path) not in json.dumps(config)


def test_an_adapter_that_was_changed_is_not_merged(base: Base, public: Path, private: Corpus, tmp_path: Path) -> None:
    made = continued.adapt(base, policy(public, steps=1), private, tmp_path / "run", tmp_path)
    models.load(made)
    assert made.adaptation is not None
    with (made.adaptation.folder / "adapter_config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(IntegrityError, match="was changed"):
        models.load(made)


class TestOverlap:
    """A private record inside public text would escape the accounting."""

    def counted(self, tmp_path: Path, own: list[str], public: list[str], overlap: str = "refuse") -> int:
        first, second = corpus(tmp_path / "own", own), corpus(tmp_path / "theirs", public)
        rules = ContinuedPretraining(public_data="x", overlap=overlap)  # type: ignore[arg-type]
        return continued.check(rules, first.folder / "records.jsonl", second.folder / "records.jsonl")

    def test_what_shares_nothing_passes(self, tmp_path: Path) -> None:
        assert self.counted(tmp_path, [*texts(0, 9), ""], texts(100, 9)) == 0

    @pytest.mark.parametrize("overlap", ["refuse", "count"])
    @pytest.mark.parametrize(
        ("own", "public"),
        [
            ("Zero one TWO three", "zero, one two three."),
            (tiny.sentence(3, 20), tiny.sentence(4, 30) + ". " + tiny.sentence(3, 20).upper() + " " + tiny.sentence(5, 30)),
        ],
    )
    def test_a_whole_record_is_refused_always_with_counts_only(
        self, tmp_path: Path, own: str, public: str, overlap: str
    ) -> None:
        with pytest.raises(InputError, match="1 records of the data stand in") as refusal:
            self.counted(tmp_path, [own, *texts(50, 3)], [public, *texts(100, 3)], overlap)
        assert not any(word in str(refusal.value) for word in own.split() if word.lower() not in ("one", "two"))

    def test_words_in_common_are_refused_unless_the_policy_counts_them(self, tmp_path: Path) -> None:
        phrase = tiny.sentence(3, 13)
        own = [f"{phrase} {tiny.sentence(20, 9)}", *texts(50, 3)]
        for name, overlap in (("a", "count"), ("b", "refuse")):
            (tmp_path / name).mkdir()
            if overlap == "count":
                assert self.counted(tmp_path / name, own, [f"so {phrase}"], overlap) == 1
            else:
                with pytest.raises(InputError, match="1 records of the data share 13 words"):
                    self.counted(tmp_path / name, own, [f"so {phrase}"], overlap)

    def test_twelve_words_in_common_are_no_overlap(self, tmp_path: Path) -> None:
        phrase = tiny.sentence(3, 12)
        assert self.counted(tmp_path, [f"{phrase} {tiny.sentence(20, 9)}"], [f"{phrase} so"]) == 0

    def test_a_run_stops_before_anything_is_trained(self, base: Base, public: Path, tmp_path: Path) -> None:
        own = corpus(tmp_path / "private", texts(0, 1))  # also the first public record
        with pytest.raises(InputError, match="stand in"):
            continued.adapt(base, policy(public), own, tmp_path / "run", tmp_path)
        assert not list((tmp_path / "models").glob("continued/*"))


def test_what_cannot_be_is_refused(base: Base, public: Path, private: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        continued.adapt(base, policy(tmp_path / "none.jsonl"), private, tmp_path / "run", tmp_path)
    with pytest.raises(InputError, match="context"):
        continued.adapt(base, policy(public, max_tokens=129), private, tmp_path / "run", tmp_path)
    (tmp_path / "short.jsonl").write_text('{"text": "baba"}\n')
    with pytest.raises(InputError, match="less than one window"):
        continued.adapt(base, policy(tmp_path / "short.jsonl"), private, tmp_path / "run", tmp_path)
    with pytest.raises(PolicyError, match="dora"):
        policy(public).override(train__lora__dora=True)
