"""The whole audit on tiny models: one that memorised its canaries and records, one that learned nothing from them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import canaries, models, policy
from pipeline.audit import Evidence, Figure, audit, canary, epsilon, exposure
from pipeline.audit import stage as stages
from pipeline.audit.signals import METHODS
from pipeline.canaries import Planted, load_manifest, plant
from pipeline.corpus import Corpus, Part, Record, load_records, save_records
from pipeline.errors import IntegrityError
from pipeline.folders import digest_file, digest_folder, write_lines
from pipeline.gates import judge
from pipeline.policy import Lora, Policy
from pipeline.scrub import Recall, Scrubbed
from pipeline.train.examples import encode, pad
from pipeline.train.loop import Trained
from pipeline.train.mechanism import Mechanism
from tests import tiny

SENTINEL = "zzsecretzz"


class Line(NamedTuple):
    """Everything that the audit is given."""

    planted: Planted
    scrubbed: Scrubbed
    base: models.Base
    rules: Policy
    corpus: Corpus


def name_of(index: int) -> str:
    """The personal value that was removed from the end of a record."""
    return f" {tiny.words()[index % 300]} {tiny.words()[7 * index % 320]}"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("line")
    model = tiny.llama(layers=1, width=64)
    model.config.tie_word_embeddings = False
    # Adapters leave the head as it is: a wide one lets them give a token a high probability.
    wide = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(0.3 * wide)
    base = models.resolve(str(tiny.save(folder / "base", model)), folder)
    chosen = policy.load("default").override(
        data__held_out=0.4, canaries__count=128, canaries__prefix_tokens=4, canaries__guesses=64, canaries__repeated=0,
        gates__epsilon_bound__at_most=2.5,  # below the ceiling of 64 guesses
        audit__membership_records=120, audit__utility_records=50, audit__exposure_canaries=32,
        audit__prefix_tokens=11, audit__suffix_tokens=4,  # the sentinel's ten letters and a word, then words of its own
        audit__samples=8, audit__games_values=10,
    )  # fmt: skip
    texts = [f"{SENTINEL} {tiny.sentence(i, 5)}" for i in range(300)]
    (folder / "scrubbed").mkdir()
    made = (Record(f"r{i}", f"u{i // 2}", (Part("text", text),)) for i, text in enumerate(texts))
    save_records(folder / "scrubbed" / "records.jsonl", made)
    spans = [[{"start": len(text), "end": len(text + name_of(i)), "entity": "PERSON"}] for i, text in enumerate(texts)]
    lines = (json.dumps({"id": f"r{i}", "spans": found}) + "\n" for i, found in enumerate(spans))
    write_lines(folder / "scrubbed" / "spans.jsonl", lines)
    originals = (Record(f"r{i}", f"u{i // 2}", (Part("text", text + name_of(i)),)) for i, text in enumerate(texts))
    (folder / "corpus").mkdir()
    save_records(folder / "corpus" / "records.jsonl", originals)
    corpus = Corpus.model_construct(folder=folder / "corpus", fingerprint="0" * 64)
    recall = (Recall(entity="ALL", planted=200, found=190, low=0.917), Recall(entity="PERSON", planted=50, found=45, low=0.8))
    scrubbed = Scrubbed(
        folder=folder / "scrubbed", records=300, changed=0, entities={}, detector="default", operator="placeholder",
        digest=digest_file(folder / "scrubbed" / "records.jsonl"), recall=recall, seconds=0.0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canaries.random, "SystemRandom", lambda: random.Random(7))  # repeatable coins and secrets
        return Line(plant(scrubbed, base, chosen, folder / "planted"), scrubbed, base, chosen, corpus)


def trained(line: Line, folder: Path, steps: int) -> Trained:
    """An adapter trained without any privacy for `steps` steps on every planted record, or on none if there are none."""
    model, tokenizer = models.load(line.base)
    adapted = models.adapt(model, Lora(rank=32, alpha=64), seed=0)
    if steps:
        examples = encode(load_records(line.planted.folder / "train.jsonl"), tokenizer, 64)
        ids, labels = pad(examples, 1)
        optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], 0.003)
        adapted.train()
        for _ in range(steps):
            optimizer.zero_grad()
            adapted(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(adapted.parameters(), 1.0)
            optimizer.step()
    else:
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(parameter.numel()))
    models.save_adapter(adapted, folder / "adapter")
    mechanism = Mechanism(
        unit="record", units=line.planted.train_units, expected_batch=32, steps=40, noise_multiplier=1.0, clipping_norm=1.0,
        delta=1e-4,
    )  # fmt: skip
    # Built by hand and unchecked, so that a field which the audit does not read can be added to Trained.
    return Trained.model_construct(
        folder=folder, adapter=folder / "adapter", adapter_digest=digest_folder(folder / "adapter"), base=line.base,
        mechanism=mechanism, steps=40, epsilon=mechanism.epsilon(), epsilon_prv=mechanism.epsilon_prv(), delta=1e-4,
        records=line.planted.train_records, records_cut=0, tokens_per_second=1.0, seconds=1.0, empty_draws=0,
        lost_gradients=0, manifest_digest=line.planted.manifest_digest, gradients="direct",
        group_epsilon={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def quiet(line: Line, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Evidence]:
    folder = tmp_path_factory.mktemp("quiet")
    made = trained(line, folder, 0)
    return made, audit(line.planted, made, line.scrubbed, line.rules, folder / "evidence", registered=True, corpus=line.corpus)


@pytest.fixture(scope="module")
def leaky(line: Line, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Evidence]:
    folder = tmp_path_factory.mktemp("leaky")
    made = trained(line, folder, 80)
    evidence = audit(line.planted, made, line.scrubbed, line.rules, folder / "evidence", registered=True, corpus=line.corpus)
    return made, evidence


NAMES = {
    "privacy.epsilon", "privacy.delta", "scrub.recall", "scrub.recall.PERSON", "scrub.recall_worst",
    "epsilon.lower_bound", "epsilon.reachable", "epsilon.claim_p", "epsilon.correct_guesses", "epsilon.outcome",
    "epsilon.fdp_lower_bound", "epsilon.fdp_claim_p", "epsilon.fdp_outcome", "exposure.family_cutoff",
    "exposure.family_p", "exposure.mean_p", "exposure.mean_bits", "exposure.max_bits", "exposure.control_mean_bits",
    "exposure.control_p", "membership.splitter.auc",
    *(f"membership.{attack}.{figure}" for attack in METHODS for figure in ("auc", "tpr_at_1", "tpr_at_01")),
    "membership.worst.auc",
    *(f"extraction.{way}{side}" for way in ("greedy", "discoverable", "either") for side in ("", "_control", "_excess")),
    *(f"games.{game}{side}" for game in ("sampling", "reconstruction", "inference") for side in ("", "_control", "_excess")),
    "games.sampling_recall", "games.values_left_in_training", "games.values_left_in_training.PERSON",
    *(f"utility.{name}" for name in ("base_perplexity", "perplexity", "perplexity_ratio", "base_accuracy", "accuracy")),
}  # fmt: skip


def test_every_figure_is_there_finite_and_ordered(quiet: tuple[Trained, Evidence]) -> None:
    figures = quiet[1].figures
    assert set(figures) == NAMES
    for name, figure in figures.items():
        assert figure.name == name
        assert figure.n > 0, name
        assert figure.method
        assert math.isfinite(figure.value)
        assert figure.low is None or figure.low <= figure.value
        assert figure.high is None or figure.value <= figure.high


def test_conditions_hold_on_an_honest_run(quiet: tuple[Trained, Evidence]) -> None:
    failing = {
        (name, key) for name, figure in quiet[1].figures.items() for key, holds in figure.conditions.items() if not holds
    }
    assert failing == set()


def test_a_model_that_memorised_is_caught_by_every_attack(leaky: tuple[Trained, Evidence]) -> None:
    figures = leaky[1].figures
    assert figures["epsilon.lower_bound"].value > 1
    assert figures["epsilon.lower_bound"].value <= figures["epsilon.reachable"].value
    assert figures["exposure.family_p"].value < 0.01
    assert figures["exposure.mean_bits"].value > 8
    assert figures["exposure.control_mean_bits"].value < 4
    for attack in METHODS:
        assert figures[f"membership.{attack}.auc"].low > 0.6
    assert figures["membership.worst.auc"].low > 0.7
    assert figures["extraction.either_excess"].low > 0.1


def test_a_model_that_learned_nothing_shows_nothing(quiet: tuple[Trained, Evidence]) -> None:
    figures = quiet[1].figures
    assert figures["epsilon.lower_bound"].value < 1.5
    assert figures["exposure.family_p"].value > 1e-3
    assert figures["exposure.mean_p"].value > 1e-3
    assert figures["membership.worst.auc"].low < 0.6
    assert figures["extraction.either"].value == figures["extraction.either_control"].value == 0


def test_the_gates_reject_the_model_that_memorised(line: Line, leaky: tuple[Trained, Evidence]) -> None:
    verdict = judge(line.rules, leaky[1])
    failed = {gate.name for gate in verdict.gates if not gate.passed}
    assert verdict.status == "rejected"
    assert {"epsilon_bound", "exposure", "membership", "extraction"} <= failed
    bound, limit = leaky[1].figures["epsilon.lower_bound"], line.rules.gates["epsilon_bound"].at_most
    assert limit < bound.value <= bound.ceiling  # the audit had the power to show it


def test_the_bounds_that_gates_judge_are_there(quiet: tuple[Trained, Evidence], leaky: tuple[Trained, Evidence]) -> None:
    for _, evidence in (quiet, leaky):
        judged = "membership.worst.auc", "extraction.either_excess", "membership.splitter.auc", "utility.perplexity_ratio"
        for name in judged:
            assert evidence.figures[name].low <= evidence.figures[name].value <= evidence.figures[name].high
        figure = evidence.figures["epsilon.lower_bound"]
        assert figure.ceiling == evidence.figures["epsilon.reachable"].value == epsilon.one_run_epsilon(128, 64, 64, 1e-4)
        assert evidence.figures["exposure.mean_bits"].ceiling == math.log2(48**3)


def test_the_entity_with_the_lowest_recall_is_named(line: Line, quiet: tuple[Trained, Evidence]) -> None:
    figure = quiet[1].figures["scrub.recall_worst"]
    assert (figure.value, figure.low, figure.n) == (0.9, 0.8, 50)
    assert figure.method.startswith("PERSON,")
    some = (
        Recall(entity="ALL", planted=9, found=3, low=0.1),
        Recall(entity="LOCATION", planted=4, found=4, low=0.47),  # found in full, and yet the least is known of it
        Recall(entity="PERSON", planted=50, found=45, low=0.8),
        Recall(entity="URL", planted=0, found=0, low=0.0),  # not probed
    )
    found = {one.name: one for one in stages._recall(line.scrubbed.model_copy(update={"recall": some}))}
    assert found["scrub.recall_worst"].method.startswith("LOCATION,")
    assert (found["scrub.recall_worst"].value, found["scrub.recall_worst"].low) == (1.0, 0.47)
    assert "scrub.recall_worst" not in {one.name for one in stages._recall(line.scrubbed.model_copy(update={"recall": ()}))}


def test_what_another_detector_still_finds_is_counted_by_the_records_that_it_read(line: Line) -> None:
    read = {"rescanned_by": "other", "rescanned": 20, "residual": {"PERSON": 3, "URL": 2}}
    found = {one.name: one for one in stages._recall(line.scrubbed.model_copy(update=read))}
    assert (found["scrub.residual"].value, found["scrub.residual"].n) == (0.25, 20)  # of 300 records in all
    none = line.scrubbed.model_copy(update=read | {"rescanned": 0, "residual": {}})
    assert "scrub.residual" not in {one.name for one in stages._recall(none)}


def test_the_residual_risk_is_the_product_of_the_upper_bounds() -> None:
    missed = Figure(name="scrub.recall", value=0.98, low=0.95, n=200, method="m")
    worse = Figure(name="scrub.context", value=0.97, low=0.9, n=100, method="m")
    kind = Figure(name="scrub.recall.PERSON", value=0.5, low=0.1, n=9, method="m")  # of one kind: not of all values
    first = Figure(name="exposure.first", value=0.25, low=0.1, high=0.4, n=20, method="m", conditions={"sealed": False})
    (risk,) = stages._residual([kind, missed, worse, first])
    assert (risk.value, risk.high, risk.n) == (pytest.approx(0.03 * 0.25), pytest.approx(0.1 * 0.4), 20)
    assert "scrub.context" in risk.method
    assert not risk.conditions["sealed"]  # what voids the secrets voids the product
    assert stages._residual([first, kind]) == stages._residual([missed, worse]) == []


def test_units_that_depend_on_the_coins_void_the_figures(line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path) -> None:
    """The negative control of `canaries_counted_as_units`: only the planted canaries are counted, so n tells how many."""
    fewer = line.planted.train_units - line.planted.canaries + line.planted.included
    made = quiet[0].model_copy(update={"mechanism": quiet[0].mechanism.model_copy(update={"units": fewer})})
    planted = line.planted.model_copy(update={"train_units": fewer})
    made = made.model_copy(update={"epsilon": made.mechanism.epsilon(), "epsilon_prv": made.mechanism.epsilon_prv()})
    evidence = audit(planted, made, line.scrubbed, line.rules, tmp_path / "evidence", registered=True)
    assert not evidence.figures["epsilon.lower_bound"].conditions["canaries_counted_as_units"]
    assert quiet[1].figures["epsilon.lower_bound"].conditions["canaries_counted_as_units"]


def test_a_score_or_tokens_other_than_the_sealed_ones_void_the_figures(
    line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path
) -> None:
    """A manifest sealed for another score, and with a secret whose tokens are not those of its text."""
    sealed = load_manifest(line.planted)
    first, second = sealed.canaries[0], next(one for one in sealed.canaries if one.secret != sealed.canaries[0].secret)
    swapped = first.model_copy(update={"secret": second.secret, "choice": second.choice})
    other = sealed.model_copy(update={"score": "the loss", "canaries": (swapped, *sealed.canaries[1:])})
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in ("held_out.jsonl", "train.jsonl"):
        (folder / name).write_bytes((line.planted.folder / name).read_bytes())
    (folder / "manifest.json").write_text(other.model_dump_json())
    planted = line.planted.model_copy(update={"folder": folder, "manifest_digest": other.digest})
    made = quiet[0].model_copy(update={"manifest_digest": other.digest})
    figures = audit(planted, made, line.scrubbed, line.rules, tmp_path / "evidence", registered=True).figures
    broken = {name for name, holds in figures["epsilon.lower_bound"].conditions.items() if not holds}
    assert broken == {"score_as_sealed", "tokens_as_trained"}
    assert not figures["exposure.family_p"].conditions["tokens_as_trained"]


def test_coins_that_were_not_fair_or_not_of_one_copy_each_void_the_bounds(line: Line) -> None:
    manifest = load_manifest(line.planted)

    def broken(**changes: object) -> set[str]:
        some = tuple(one.model_copy(update=changes) for one in manifest.canaries[:60]) + manifest.canaries[60:]
        changed = manifest.model_copy(update={"canaries": some})
        made = canary.epsilon_figures(changed, np.random.default_rng(0).normal(size=128), 1.0, 1e-4, {}, 0.0)
        figures = {figure.name: figure for figure in made}
        assert (figures["epsilon.outcome"].word == "inconclusive") is bool(changes)
        return {name for name, holds in figures["epsilon.lower_bound"].conditions.items() if not holds}

    assert broken() == set()
    assert broken(included=True) == {"coins_fair"}
    assert broken(copies=2) == {"one_copy_each"}


def test_a_manifest_that_the_ledger_does_not_hold_or_the_scrubber_did_not_see_voids_the_figures(
    line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path
) -> None:
    """The negative control of both conditions: a manifest that a run could have rewritten after training shows nothing."""
    evidence = audit(line.planted, quiet[0], line.scrubbed, line.rules, tmp_path / "evidence", registered=False)
    conditions = evidence.figures["epsilon.lower_bound"].conditions
    assert not conditions["manifest_in_ledger_before_training"]
    assert conditions["unchanged_by_scrubber"]
    assert quiet[1].figures["epsilon.lower_bound"].conditions["manifest_in_ledger_before_training"]
    assert evidence.figures["epsilon.outcome"].word == "inconclusive"
    failed = {gate.name for gate in judge(line.rules, evidence).gates if not gate.passed}
    assert {"epsilon_bound", "exposure"} <= failed


def test_the_words_for_what_a_bound_says_of_a_claim(line: Line) -> None:
    """All guesses right against a small claim is a violation, chance is not, and a claim beyond reach stays open."""
    manifest = load_manifest(line.planted)
    coins = np.array([canary.included for canary in manifest.canaries])
    chance, known = np.random.default_rng(0).normal(size=128), coins + np.random.default_rng(1).normal(0, 0.1, 128)
    mechanism = Mechanism(
        unit="record", units=400, expected_batch=20, steps=10, noise_multiplier=1.0, clipping_norm=1.0, delta=1e-4
    )
    small = mechanism.epsilon()
    for scores, claimed, valid, words in (
        (known, small, True, ("violated", "violated")),
        (chance, small, True, ("consistent", "consistent")),
        (known, small, False, ("inconclusive", "inconclusive")),
        (known, 20.0, True, ("inconclusive", "violated")),  # the curve is the mechanism's, whatever ε is claimed
    ):
        made = canary.epsilon_figures(manifest, scores, claimed, 1e-4, {"sealed": valid}, 0.0, (mechanism, 10))
        figures = {figure.name: figure for figure in made}
        assert (figures["epsilon.outcome"].word, figures["epsilon.fdp_outcome"].word) == words
        for name in ("epsilon.outcome", "epsilon.fdp_outcome"):
            assert canary.OUTCOMES[int(figures[name].value)] == figures[name].word
    unclaimed = {figure.name for figure in canary.epsilon_figures(manifest, chance, None, 1e-4, {}, 0.0)}
    assert not {"epsilon.outcome", "epsilon.claim_p", "epsilon.fdp_claim_p", "epsilon.fdp_outcome"} & unclaimed


def test_an_adapter_of_unknown_training_is_attacked_and_promises_nothing(
    line: Line, leaky: tuple[Trained, Evidence], tmp_path: Path
) -> None:
    made = leaky[0].model_copy(update={"epsilon": 0.0})
    evidence = audit(line.planted, made, line.scrubbed, line.rules, tmp_path / "evidence", registered=True, claimed=False)
    assert evidence.figures["epsilon.lower_bound"].value == leaky[1].figures["epsilon.lower_bound"].value
    assert not any(name.startswith("privacy.") for name in evidence.figures)
    verdict = judge(line.rules, evidence)
    assert "epsilon_spent" in {gate.name for gate in verdict.gates if not gate.passed}


def test_figures_are_those_of_the_files(line: Line, leaky: tuple[Trained, Evidence]) -> None:
    """The bound and the exposures once more, from the manifest and the model alone, without the audit's own scoring."""
    made, evidence = leaky
    manifest = load_manifest(line.planted)
    tuned, _ = models.with_adapter(line.base, made.adapter)
    base, _ = models.load(line.base)

    def total(model: torch.nn.Module, ids: list[int]) -> float:
        with torch.no_grad():
            logits = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        return sum(logits[i - 1, ids[i]].item() for i in range(1, len(ids)))

    sequences = [[0, *canary.prefix, *canary.secret] for canary in manifest.canaries]
    scores = np.array([total(tuned, ids) - total(base, ids) for ids in sequences])
    coins = np.array([canary.included for canary in manifest.canaries])
    order = np.argsort(-scores)
    right = int(coins[order[:32]].sum() + (~coins[order[-32:]]).sum())
    bound = epsilon.one_run_epsilon(128, 64, right, 1e-4, manifest.alpha)
    assert evidence.figures["epsilon.lower_bound"].value == pytest.approx(bound, abs=1e-9)
    assert evidence.figures["epsilon.correct_guesses"].value == right / 64
    assert sorted(evidence.series["epsilon.scores.planted"]) == pytest.approx(sorted(scores[coins]), abs=1e-2)
    bits = evidence.series["exposure.planted"]
    assert len(bits) == evidence.figures["exposure.mean_bits"].n == 16
    assert evidence.figures["exposure.mean_bits"].value == pytest.approx(np.mean(bits), abs=1e-9)
    best = round(manifest.spaces["random"].size / 2 ** max(bits))
    assert evidence.figures["exposure.family_p"].value == pytest.approx(1 - (1 - best / 48**3) ** 16, rel=1e-6)
    assert evidence.figures["exposure.max_bits"].value == exposure.exposure_bits(best, 48**3)


def test_evidence_file_is_the_value_and_holds_no_text(leaky: tuple[Trained, Evidence], line: Line) -> None:
    evidence = leaky[1]
    text = (evidence.folder / "evidence.json").read_text()
    content = json.loads(text)
    assert Evidence.model_validate(content | {"folder": str(evidence.folder)}) == evidence
    texts = [record.parts[0].text for record in load_records(line.planted.folder / "train.jsonl")]
    assert SENTINEL not in text
    assert not any(found in text for found in texts)
    findings = (evidence.folder / "findings.jsonl").read_text()
    names = [name_of(i).strip() for i in range(300)]
    assert not any(name in text + findings for name in names)
    assert all(set(json.loads(row)) == {"game", "id", "part", "start", "end", "entity"} for row in findings.splitlines())


def test_without_the_originals_no_game_is_played(line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path) -> None:
    evidence = audit(line.planted, quiet[0], line.scrubbed, line.rules, tmp_path / "evidence", registered=True)
    played = {name for name in quiet[1].figures if name.startswith("games.")}
    assert set(quiet[1].figures) - set(evidence.figures) == played != set()


def test_an_audit_of_the_same_inputs_is_not_done_again_and_of_others_is(
    line: Line, quiet: tuple[Trained, Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, evidence = quiet
    monkeypatch.setattr(models, "with_adapter", lambda *_: pytest.fail("the model was loaded again"))
    assert (
        audit(line.planted, made, line.scrubbed, line.rules, evidence.folder, registered=True, corpus=line.corpus) == evidence
    )
    other = line.rules.override(audit__utility_records=51)
    with pytest.raises(pytest.fail.Exception):
        audit(line.planted, made, line.scrubbed, other, evidence.folder, registered=True)
    read = line.scrubbed.model_copy(update={"rescanned": 20, "residual": {"PERSON": 3}})
    with pytest.raises(pytest.fail.Exception):
        audit(line.planted, made, read, line.rules, evidence.folder, registered=True, corpus=line.corpus)


def test_the_same_audit_in_another_folder_finds_the_same(line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path) -> None:
    made, evidence = quiet
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, **figures: float | int | str) -> None:
        seen.append((done, total))

    again = audit(
        line.planted,
        made,
        line.scrubbed,
        line.rules,
        tmp_path / "evidence",
        registered=True,
        corpus=line.corpus,
        progress=progress,
    )
    assert again.digest == evidence.digest
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


def test_another_manifest_or_adapter_is_refused(line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path) -> None:
    made = quiet[0]
    with pytest.raises(IntegrityError, match="another canary manifest"):
        audit(
            line.planted,
            made.model_copy(update={"manifest_digest": "0" * 64}),
            line.scrubbed,
            line.rules,
            tmp_path / "a",
            registered=True,
        )
    with pytest.raises(IntegrityError, match="changed after training"):
        audit(
            line.planted,
            made.model_copy(update={"adapter_digest": "0" * 64}),
            line.scrubbed,
            line.rules,
            tmp_path / "b",
            registered=True,
        )
    assert not (tmp_path / "a").exists()


def test_canaries_that_were_not_planted_as_drawn_void_the_figures(
    line: Line, quiet: tuple[Trained, Evidence], tmp_path: Path
) -> None:
    """The negative control of `planted_as_drawn`: a canary planted twice, or left out, is noticed."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for name in ("held_out.jsonl", "manifest.json"):
        (folder / name).write_bytes((line.planted.folder / name).read_bytes())
    records = list(load_records(line.planted.folder / "train.jsonl"))
    twice = next(record for record in records if "canary" in record.id)
    save_records(folder / "train.jsonl", [*records, twice])
    planted = line.planted.model_copy(update={"folder": folder, "digest": "1" * 64})
    evidence = audit(planted, quiet[0], line.scrubbed, line.rules, tmp_path / "evidence", registered=True)
    bound: Figure = evidence.figures["epsilon.lower_bound"]
    assert not bound.conditions["planted_as_drawn"]
    failed = {gate.name for gate in judge(line.rules, evidence).gates if not gate.passed}
    assert {"epsilon_bound", "exposure"} <= failed


def test_a_diverged_adapter_fails_its_gates_instead_of_stopping_the_audit(line: Line, tmp_path: Path) -> None:
    made = trained(line, tmp_path, 0)
    path = made.adapter / "adapter_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(path).items()}, path)
    made = made.model_copy(update={"adapter_digest": digest_folder(made.adapter)})
    evidence = audit(line.planted, made, line.scrubbed, line.rules, tmp_path / "evidence", registered=True, corpus=line.corpus)
    failed = {gate.name for gate in judge(line.rules, evidence).gates if not gate.passed}
    assert {"epsilon_bound", "exposure", "membership", "extraction", "utility"} <= failed
