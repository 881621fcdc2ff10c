"""`hushtune plan`: what a run would do and spend. Trains nothing, reserves nothing, leaves nothing behind."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import answer, columns, data_file, quiet, resolved_policy, watched
from pipeline.folders import Value
from pipeline.models import ladder

if TYPE_CHECKING:
    from pipeline.corpus import Corpus
    from pipeline.models import Base
    from pipeline.policy import Policy
    from pipeline.train.mechanism import Mechanism

_CHARACTERS_PER_TOKEN = 3.5
_SCRUB_CHARACTERS = 15_000  # a second and core, measured with the default detector
_MOST_SCRUBBERS = 4
_COHORTS = 6  # shown of each plan
_PACKED = 3  # the audit scores long packed sequences, which run faster than a training's short ones
_RIVALS = 300  # tokens of a removed value's candidates
_TWIN_STEPS = 80  # that the twin took on the bundled example


class Plan(Value):
    """What a run would do. Units are the policy's (records or persons), canaries among them; minutes are a rough guess.

    `canaries` counts the units that canaries hold, in or out; about half are planted, `canary_share` of all. `reachable_bound`
    is the largest ε that the one-run audit can show, `expected_bound` what the best attack on a sound run at this ε is expected
    to show; both also by the trade-off curve (`fdp`).
    """

    records: int
    units: int
    held_out_units: int
    train_units: int
    unit: str
    sampling_rate: float
    expected_batch: int
    steps: int
    noise_multiplier: float
    epsilon: float
    delta: float
    canaries: int
    guesses: int
    canary_share: float
    reachable_bound: float
    expected_bound: float
    reachable_fdp_bound: float
    expected_fdp_bound: float
    budget: str
    lifetime_spent: float
    lifetime_after: float
    lifetime_cap: float
    cohorts: list[dict[str, Any]]
    fits: bool
    minutes: dict[str, float]


def plan(arguments: argparse.Namespace) -> int:
    """Print what a run would do."""
    quiet()
    policy, data = resolved_policy(arguments), data_file(arguments, folder=True)
    from pipeline import corpus as corpora
    from pipeline import intake, models, runs

    files = intake.of(data)
    if arguments.incremental:
        files = files.without(intake.released(arguments.home, arguments.name or runs.name_for(data)))
    base = models.resolve(policy.model, arguments.home)
    where = arguments.home if arguments.home.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="plan-", dir=where) as folder, watched("read") as line:
        corpus = corpora.read(files, policy, Path(folder) / "corpus", progress=line)
        made = forecast(policy, corpus, base, arguments.home)
    answer(arguments, made.model_dump(mode="json"), _text(made, policy, base))
    return 0


def forecast(policy: Policy, corpus: Corpus, base: Base, home: Path) -> Plan:
    """What a run of `policy` on `corpus` would do, all canaries counted as units.

    Raises:
        InputError: the corpus holds fewer units than the privacy parameters can bear, or more than the lifetime δ can.
        UsageError: the budget protects another unit.
    """
    from pipeline.audit import one_run_fdp
    from pipeline.audit.epsilon import one_run_epsilon
    from pipeline.cohorts import load_key, units_of
    from pipeline.composition import Spend, composed_epsilon
    from pipeline.ledger import Ledger
    from pipeline.train.mechanism import calibrate

    units = corpus.units if policy.privacy.unit == "person" else corpus.records
    out = max(1, round(policy.data.held_out * units))
    planted = policy.canaries.units(policy.privacy.unit)
    trained = max(1, units - out + planted)
    policy.privacy.lifetime.check(trained)
    mechanism = calibrate(policy, trained)
    spend = Spend(sampling_rate=mechanism.sampling_rate, noise_multiplier=mechanism.noise_multiplier, steps=mechanism.steps)
    lifetime, key = policy.privacy.lifetime, load_key(home, make=False)
    if (home / "ledger.db").exists() or os.environ.get("HUSHTUNE_LEDGER_URL"):
        ledger = Ledger(home)
        about: dict[str, Any] = {"lifetime": lifetime, "planned": [spend], "units": units_of(corpus, policy, key)}
        now = ledger.standing(lifetime.budget, lifetime=lifetime)
        spent, cap = now.epsilon_spent, now.epsilon_cap
        after = ledger.standing(lifetime.budget, unit=mechanism.unit, **about).epsilon_spent
        cohorts = [cohort.model_dump(mode="json") for cohort in ledger.cohorts(lifetime.budget, **about)]
    else:
        spent, cap, after, cohorts = 0.0, lifetime.epsilon, composed_epsilon([spend], lifetime.delta), []
    canaries, delta, alpha = policy.canaries, mechanism.delta, policy.audit.alpha
    epsilon = mechanism.epsilon()
    mu = one_run_fdp.gaussian_mu(epsilon, delta)
    expected = one_run_fdp.expected_correct(canaries.count, canaries.guesses, mu)
    m, k = canaries.count, canaries.guesses
    return Plan(
        records=corpus.records,
        units=corpus.units,
        held_out_units=out,
        train_units=mechanism.units,
        unit=mechanism.unit,
        sampling_rate=mechanism.sampling_rate,
        expected_batch=mechanism.expected_batch,
        steps=mechanism.steps,
        noise_multiplier=mechanism.noise_multiplier,
        epsilon=epsilon,
        delta=delta,
        canaries=planted,
        guesses=canaries.guesses,
        canary_share=planted / 2 / mechanism.units,
        reachable_bound=one_run_epsilon(m, k, k, delta, alpha),
        expected_bound=one_run_epsilon(m, k, expected, delta, alpha),
        reachable_fdp_bound=one_run_fdp.gaussian_epsilon(m, k, k, delta, alpha),
        expected_fdp_bound=one_run_fdp.gaussian_epsilon(m, k, expected, delta, alpha),
        budget=lifetime.budget,
        lifetime_spent=spent,
        lifetime_after=after,
        lifetime_cap=cap,
        cohorts=cohorts,
        fits=after <= cap,
        minutes=_minutes(policy, corpus, base, mechanism, home),
    )


def _minutes(policy: Policy, corpus: Corpus, base: Base, mechanism: Mechanism, home: Path) -> dict[str, float]:
    """A rough guess, by stage, from the size of the work and the base model's speed on this machine."""
    forward, backward = _speed(base, home)
    tokens = min(policy.data.max_tokens, corpus.characters / corpus.records / _CHARACTERS_PER_TOKEN + 2)
    records = min(corpus.records / corpus.units, policy.privacy.records_per_unit) if mechanism.unit == "person" else 1
    trained = mechanism.steps * mechanism.expected_batch * records * tokens
    rules = policy.continued_pretraining
    public = 0.0  # where its steps follow from the public text, which `plan` does not read
    if rules is not None and isinstance(rules.steps, int):
        public = rules.steps * rules.batch * rules.max_tokens
    minutes = {
        **({"pretrain": public / backward / 60} if public else {}),
        "scrub": corpus.characters / (_SCRUB_CHARACTERS * min(_MOST_SCRUBBERS, os.cpu_count() or 1)) / 60,
        "train": trained / backward / 60,
        "audit": _attacks(policy, tokens, mechanism.expected_batch, forward, backward) / 60,
    }
    return {stage: round(value, 1) for stage, value in (minutes | {"all": sum(minutes.values())}).items()}


def _attacks(policy: Policy, tokens: float, batch: int, forward: float, backward: float) -> float:
    """Seconds of all attacks: scoring under two models, exact ranks, free sampling, games, and perhaps a twin."""
    rules, canaries = policy.audit, policy.canaries
    drawn = max(rules.membership_records, rules.extraction_records)
    own = canaries.prefix_tokens + canaries.secret_tokens + 2
    ladder = canaries.repeated * len(canaries.repetitions)
    scored = (drawn + max(drawn, rules.utility_records)) * tokens + (canaries.count + ladder) * own
    nodes = sum(canaries.alphabet**level for level in range(1, canaries.secret_tokens))
    ranked = (rules.exposure_canaries + ladder * (1 + rules.control)) * nodes
    packed = 2 * scored + ranked + 2 * rules.games_values * (tokens + _RIVALS)
    step = (canaries.count + ladder) / 2 * own + max(1, batch // 32) * tokens
    twin = rules.control * _TWIN_STEPS * step / backward
    return packed / (_PACKED * forward) + rules.samples * policy.data.max_tokens / forward + twin


def _speed(base: Base, home: Path) -> tuple[float, float]:
    """Tokens a second of the base model, forward alone and in training: as the last run here trained, or estimated."""
    trained = ladder.measured(home).get(base.digest) or ladder.tokens_per_second(base.parameters, ladder.matrix_rate())
    return 2 * trained, trained


def _text(made: Plan, policy: Policy, base: Base) -> str:
    fits = "fits" if made.fits else "DOES NOT FIT: this run would be refused"
    stages = ", ".join(f"{stage} {minutes:g}" for stage, minutes in made.minutes.items() if stage != "all")
    rows = (
        ("data", f"{made.records:,} records of {made.units:,} units, {made.held_out_units:,} units held out"),
        ("model", f"{base.name}, {base.parameters / 1e6:.1f} M weights"),
        ("policy", f"{policy.name}, digest {policy.digest[:12]}"),
        ("privacy", f"ε {made.epsilon:.3f} at δ {made.delta:.2g} for each {made.unit}"),
        ("sampling", f"q {made.sampling_rate:.3g}: {made.expected_batch:,} of {made.train_units:,} units expected a step"),
        ("noise", f"σ {made.noise_multiplier:g} over {made.steps:,} steps"),
        ("canaries", f"{made.canaries:,} units, about half planted: {made.canary_share:.1%} of what is trained on"),
        (
            "audit",
            f"{made.guesses:,} guesses can show at most ε {made.reachable_bound:.2f}, and the best attack on a sound run about "
            f"{made.expected_bound:.2f} ({made.reachable_fdp_bound:.2f} and {made.expected_fdp_bound:.2f} by its trade-off "
            "curve)",
        ),
        (
            "lifetime",
            f"ε {made.lifetime_spent:.3f} of {made.lifetime_cap:g} spent in budget {made.budget}, "
            f"{made.lifetime_after:.3f} after this run: {fits}",
        ),
        *(("" if row else "cohorts", words) for row, words in enumerate(_cohorts(made))),
        ("minutes", f"about {made.minutes['all']:g} ({stages})"),
    )
    return columns(rows)


def _cohorts(made: Plan) -> list[str]:
    """The arithmetic of the lifetime budget: units in the same runs, what those compose to, and what this run adds."""
    lines = []
    for cohort in made.cohorts[:_COHORTS]:
        who = "everybody else" if cohort["units"] is None else f"{cohort['units']:,} {made.unit}s"
        past = ", ".join(cohort["runs"][-3:]) or "no run yet"
        more = f"{len(cohort['runs']) - 3} more, " if len(cohort["runs"]) > 3 else ""
        added = f" → {cohort['epsilon_after']:.3f}" if cohort["planned"] else ", not in this run"
        lines.append(f"{who} in {more}{past}: ε {cohort['epsilon_spent']:.3f}{added}")
    rest = len(made.cohorts) - _COHORTS
    return [*lines, f"and {rest:,} more cohorts in fewer runs"] if rest > 0 else lines
