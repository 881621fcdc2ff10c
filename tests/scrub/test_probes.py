from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.scrub.probes import write_probes
from pipeline.scrub.recall import read_gold


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_probes(tmp_path / name, 60, seed)
    same, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert same == again != other


def test_probes_are_gold_and_evenly_shared(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    assert write_probes(path, 280, 7) == 280
    gold = list(read_gold(path))
    assert set(Counter(item.spans[0].entity for item in gold).values()) == {20}
    for item in gold:
        (span,) = item.spans
        value = item.text[span.start : span.end]
        assert value == value.strip() != ""
        assert any(character.isalnum() for character in value)
    assert path.stat().st_mode & 0o777 == 0o600


def test_values_and_sentences_vary(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    write_probes(path, 480, 7)
    values = Counter(item.text[span.start : span.end] for item in read_gold(path) for span in item.spans)
    frames = Counter(
        item.text.replace(item.text[span.start : span.end], "{}") for item in read_gold(path) for span in item.spans
    )
    assert max(values.values()) <= 3
    assert len(frames) >= 50


def test_only_what_the_policy_looks_for_is_planted(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    assert write_probes(path, 10, 7, entities=("URL", "UK_NHS")) == 10
    assert {item.spans[0].entity for item in read_gold(path)} == {"URL"}
    assert write_probes(path, 10, 7, entities=("UK_NHS",)) == 0
