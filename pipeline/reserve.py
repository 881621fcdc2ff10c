"""The reservation: calibrate the noise and take the whole planned mechanism out of the lifetime budget, before any step."""

from __future__ import annotations

from pipeline import anchors, cohorts
from pipeline.canaries import Planted
from pipeline.corpus import Corpus
from pipeline.folders import Value, write_json
from pipeline.ledger import Claim, Ledger
from pipeline.policy import Policy
from pipeline.runs import Run
from pipeline.train.mechanism import Mechanism, calibrate


class Plan(Value):
    """What a run may spend: its mechanism and its reservation."""

    mechanism: Mechanism
    claim: Claim


def reserve(run: Run, rules: Policy, corpus: Corpus, planted: Planted) -> Plan:
    """Reserve what a run of `rules` on `planted` spends at most; a run that has reserved before gets the same claim back.

    The claim and the mechanism are also written to claim.json and mechanism.json in the run's folder.

    Raises:
        InputError: δ is not below one in the number of units, or no reasonable noise keeps the promise.
        BudgetExhausted: the lifetime budget does not hold it; nothing is spent.
        IntegrityError: the ledger was shortened or exchanged.
    """
    rules.privacy.lifetime.check(planted.train_units)
    mechanism = calibrate(rules, planted.train_units)
    ledger = Ledger(run.home)
    anchors.expect(run.home, ledger)
    claim = ledger.reserve(
        run=run.id,
        lifetime=rules.privacy.lifetime,
        sampling_rate=mechanism.sampling_rate,
        noise_multiplier=mechanism.noise_multiplier,
        steps=mechanism.steps,
        epsilon=rules.privacy.epsilon,
        delta=mechanism.delta,
        policy_digest=rules.digest,
        unit=mechanism.unit,
        units=cohorts.units_of(corpus, rules, cohorts.load_key(run.home)),
        manifest=planted.manifest_digest,
    )
    write_json(run.folder / "claim.json", claim.model_dump(mode="json"))
    write_json(run.folder / "mechanism.json", mechanism.model_dump(mode="json"))
    return Plan(mechanism=mechanism, claim=claim)
