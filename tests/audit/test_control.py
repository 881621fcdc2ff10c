"""The positive control: a twin without privacy is seen through, and is rejected where it poses as the private model."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from pipeline import canaries, models, policy
from pipeline.audit import Evidence, audit, control
from pipeline.canaries import load_manifest, plant, planted_records
from pipeline.corpus import Part, Record, load_records, save_records
from pipeline.folders import digest_file, digest_folder
from pipeline.gates import judge
from pipeline.policy import Policy
from pipeline.scrub import Recall, Scrubbed
from pipeline.train.examples import encode
from pipeline.train.loop import Trained
from pipeline.train.mechanism import Mechanism
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Evidence, Trained]:
    """The twin's adapter, submitted with the papers of a private run, and what the audit found."""
    folder = tmp_path_factory.mktemp("posed")
    model = tiny.llama(layers=1, width=64)
    model.config.tie_word_embeddings = False
    wide = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(0.3 * wide)
    base = models.resolve(str(tiny.save(folder / "base", model)), folder)
    rules = policy.load("strict").override(
        privacy__unit="record", data__held_out=0.4, train__lora__rank=32, train__lora__alpha=64, train__expected_batch=32,
        canaries__count=96, canaries__prefix_tokens=4, canaries__guesses=64, canaries__repeated=4,
        canaries__repetitions=[1, 16], audit__membership_records=50, audit__utility_records=20, audit__exposure_canaries=16,
    )  # fmt: skip
    (folder / "scrubbed").mkdir()
    made = (Record(f"r{i}", f"u{i}", (Part("text", tiny.sentence(i, 5)),)) for i in range(150))
    save_records(folder / "scrubbed" / "records.jsonl", made)
    scrubbed = Scrubbed(
        folder=folder / "scrubbed", records=150, changed=0, entities={}, detector="default", operator="placeholder",
        digest=digest_file(folder / "scrubbed" / "records.jsonl"), seconds=0.0,
        recall=(Recall(entity="ALL", planted=200, found=199, low=0.97),),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canaries.random, "SystemRandom", lambda: random.Random(3))  # repeatable coins and secrets
        planted = plant(scrubbed, base, rules, folder / "planted")
    manifest, (_, tokenizer) = load_manifest(planted), models.load(base)
    inside = encode(planted_records(manifest), tokenizer, 64)
    others = encode((r for r in load_records(planted.folder / "train.jsonl") if r.id.startswith("r")), tokenizer, 64)
    twin, how = control.train(base, inside, others, 1, rules, np.random.default_rng(0))
    assert "without clipping or noise" in how
    loss = float(how.partition("to a loss of ")[2].partition(",")[0])
    assert loss < np.log(48)  # knowing the words that secrets are made of, and not the secrets, costs more
    twin.unmerge_adapter()
    models.save_adapter(twin, folder / "adapter")
    mechanism = Mechanism(
        unit="record", units=planted.train_units, expected_batch=2, steps=4, noise_multiplier=4.0, clipping_norm=1.0,
        delta=1e-4,
    )  # fmt: skip
    trained = Trained.model_construct(
        folder=folder, adapter=folder / "adapter", adapter_digest=digest_folder(folder / "adapter"), base=base,
        mechanism=mechanism, steps=4, epsilon=mechanism.epsilon(), epsilon_prv=mechanism.epsilon_prv(), delta=1e-4,
        manifest_digest=planted.manifest_digest,
    )  # fmt: skip
    before = set(folder.rglob("*"))
    evidence = audit(planted, trained, scrubbed, rules, folder / "evidence", registered=True)
    left = {path.relative_to(folder).as_posix() for path in set(folder.rglob("*")) - before}
    files = {f"evidence/{name}" for name in ("evidence.json", "findings.jsonl", "stage.json")}
    assert left == {"evidence"} | files  # nothing of the twin is on disk
    return rules, evidence, trained


def test_the_twin_shows_that_these_attacks_would_have_seen_a_leak(posed: tuple[Policy, Evidence, Trained]) -> None:
    figures = posed[1].figures
    assert figures["control.epsilon.lower_bound"].value > 1
    bits = figures["control.exposure.copies_16.mean_bits"]
    assert bits.value > 0.8 * bits.ceiling
    assert figures["control.exposure.copies_0.mean_bits"].value < 4
    assert all("without clipping or noise" in figure.method for name, figure in figures.items() if name[:8] == "control.")
    assert not any(name.endswith(("claim_p", "outcome", "dp_bits")) for name in figures if name.startswith("control."))


def test_the_twin_is_rejected_where_it_poses_as_the_private_model(posed: tuple[Policy, Evidence, Trained]) -> None:
    rules, evidence, trained = posed
    verdict = judge(rules, evidence)
    failed = {gate.name for gate in verdict.gates if not gate.passed}
    assert verdict.status == "rejected"
    assert {"epsilon_bound", "exposure"} <= failed
    assert not {"control_exposure", "control_bound", "epsilon_spent"} & failed
    assert evidence.figures["epsilon.fdp_outcome"].word == "violated"
    assert trained.epsilon < 2


def test_the_promise_bounds_a_group_of_copies_and_one_person_at_once(posed: tuple[Policy, Evidence, Trained]) -> None:
    figures, trained = posed[1].figures, posed[2]
    assert figures["exposure.copies_1.dp_bits"].value == pytest.approx(trained.epsilon / np.log(2))
    sixteen = figures["exposure.copies_16.dp_bits"].value * np.log(2)
    assert sixteen == pytest.approx(trained.mechanism.group_epsilon(16))
    assert sixteen > 16 * trained.epsilon  # more than linear, since δ grows too
