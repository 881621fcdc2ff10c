"""A realistic set of stage values, released and rejected, without running a stage: the report's fixture.

content = released()        # what build() returns for a run that passed
content = rejected()        # two gates fail
"""

from __future__ import annotations

import copy
import hashlib
import math
import random
from typing import Any

from pipeline.policy import Policy, load
from pipeline.report import build
from tests.report import more

FACTS: dict[str, Any] = {
    "run": "support-messages-2025-11-23",
    "created": "2025-11-23 18:42 UTC",
    "command": "hushtune run support-messages.jsonl.gz --policy default --name support",
    "versions": {
        "hushtune": "0.1.0",
        "python": "3.11.9",
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "peft": "0.21.2",
        "opacus": "1.6.0",
        "dp-accounting": "0.6.0",
        "presidio-analyzer": "2.2.366",
        "spacy": "3.8.18",
    },
    "hardware": {"processor": "x86_64, 2 cores", "memory": "7.7 GiB", "device": "cpu", "threads": 2},
    "seconds": {"read": 0.9, "scrub": 71.4, "plant": 0.4, "train": 88.2, "audit": 63.7, "gates": 0.0},
    **more.CONTEXT,
}


def hexes(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()


def stages() -> dict[str, Any]:
    """The eight values of a released run, as plain dicts, by the names that build() takes."""
    return {
        "corpus": _corpus(),
        "scrubbed": _scrubbed(),
        "planted": _planted(),
        "trained": _trained(),
        "evidence": _evidence(),
        "verdict": _verdict(),
        "standing": {
            "budget": "default",
            "epsilon_cap": 32.0,
            "delta": 1e-4,
            "epsilon_spent": 11.42,
            "epsilon_sum": 23.95,
            "runs": 3,
            "epsilon_left": 20.58,
        },
        "facts": copy.deepcopy(FACTS),
    }


def released(policy: Policy | None = None, **changes: Any) -> dict[str, Any]:
    """The content of a released run; `changes` replace whole stage values."""
    return build(policy or load("default"), **{**stages(), **changes})


def asked() -> dict[str, Any]:
    """Records with prompts, a twin without privacy, and a base model that learned from public text first."""
    values = stages()
    values["trained"]["base"]["adaptation"] = {
        "folder": "/somewhere/else", "digest": hexes("public adapter"), "source": "guidelines.jsonl",
        "source_digest": hexes("guidelines"), "records": 5_200, "tokens": 614_400, "steps": 300, "loss": [5.1, 4.4],
        "seconds": 310.0, "sharing": 12,
    }  # fmt: skip
    figures = [
        ("utility.public_perplexity", 171.2, 160.0, 183.9), ("utility.public_ratio", 0.538, 0.521, 0.556),
        ("utility.public_accuracy", 0.318, 0.309, 0.327),
    ]  # fmt: skip
    for prefix, middle in (("utility.base_", 0.08), ("utility.", 0.27), ("control.utility.", 0.34)):
        figures += [
            (f"{prefix}exact_match", middle / 3, middle / 6, middle / 2),
            (f"{prefix}rouge_l", middle, middle - 0.03, middle + 0.04),
        ]
        figures.append((f"{prefix}next_token_accuracy", middle + 0.2, middle + 0.18, middle + 0.22))
    for name, value, low, high in figures:
        known = {"name": name, "value": value, "low": low, "high": high, "n": 100, "method": "a method", "resolvable": True}
        values["evidence"]["figures"][name] = {**known, "conditions": {}, "seconds": 4.0}
    return build(load("default"), **values)


def awaiting() -> dict[str, Any]:
    """All gates passed, and a person must approve."""
    values = stages()
    values["verdict"]["status"] = "awaiting_approval"
    return build(load("default").override(release__approval="required"), **values)


def rejected() -> dict[str, Any]:
    """The scrubber misses too much and members stand out; the adapter still learned something."""
    values = stages()
    figures, gates = values["evidence"]["figures"], values["verdict"]["gates"]
    figures["scrub.recall"] |= {"value": 0.871, "low": 0.829}
    values["scrubbed"]["recall"][-1] |= {"found": 209, "low": 0.829}
    figures["membership.ratio.auc"] |= {"value": 0.663, "low": 0.629, "high": 0.697}
    series = values["evidence"]["series"]
    series["membership.ratio.roc"] = [[x, min(1.0, x**0.62)] for x, _ in series["membership.ratio.roc"]]
    series["membership.ratio.roc_band"] = [[x, 0.8 * y, min(1.0, 1.2 * y)] for x, y in series["membership.ratio.roc"]]
    for gate in gates:
        if gate["name"] == "scrub_recall":
            gate |= {"passed": False, "value": 0.871, "bound": 0.829}
            gate["why"] = "scrub.recall is 0.871; its lower bound 0.829 is below the limit 0.9."
        if gate["name"] == "membership":
            gate |= {"passed": False, "value": 0.663, "bound": 0.697}
            gate["why"] = "membership.ratio.auc is 0.663; its upper bound 0.697 is above the limit 0.6."
    values["verdict"] |= {"status": "rejected", "reasons": [gate["why"] for gate in gates if not gate["passed"]]}
    return build(load("default"), **values)


def inconclusive() -> dict[str, Any]:
    """One gate's test could not have failed: what it found is within the limit and shows nothing."""
    values = stages()
    values["evidence"]["figures"]["epsilon.lower_bound"]["ceiling"] = 1.2
    gate = values["verdict"]["gates"][1]
    why = "epsilon.lower_bound could at most have been 1.2, so this gate cannot fail, and the limit is at most 2.5."
    gate |= {"passed": False, "inconclusive": True, "why": why}
    values["verdict"] |= {"status": "inconclusive", "reasons": [why]}
    return build(load("default"), **values)


def waived() -> dict[str, Any]:
    """Released although members stand out: a person signed for that gate."""
    values = stages()
    values["evidence"]["figures"]["membership.ratio.auc"] |= {"value": 0.663, "low": 0.629, "high": 0.697}
    gate = values["verdict"]["gates"][3]
    gate |= {"passed": False, "tolerated": True, "value": 0.663, "bound": 0.697}
    gate["why"] = "membership.ratio.auc is 0.663; its upper bound 0.697 is above the limit 0.6."
    gate["waiver"] = {"by": "Ada Byron", "issued": "2025-11-23", "expires": "2025-12-23", "why": "Accepted for a pilot."}
    return build(load("default"), **values)


def bare() -> dict[str, Any]:
    """A run whose evidence is empty: everything is shown as not measured and nothing breaks."""
    values = stages()
    values["evidence"] |= {"figures": {}, "series": {}}
    values["scrubbed"] |= {"recall": [], "entities": {}, "sampled": None, "residual": None, "rescanned_by": None, "quasi": None}
    for gate in values["verdict"]["gates"]:
        gate |= {"passed": False, "value": None, "bound": None, "why": f"{gate['figure']} is missing from the evidence."}
    values["verdict"] |= {"status": "rejected", "reasons": [gate["why"] for gate in values["verdict"]["gates"]]}
    values["facts"] = {}
    return build(load("default"), **values)


def base() -> dict[str, Any]:
    return {
        "name": "nano",
        "folder": "/srv/SENTINEL-FOLDER/nano",
        "digest": hexes("base"),
        "parameters": 7_612_416,
        "context": 512,
        "licence": "apache-2.0",
    }


def _corpus() -> dict[str, Any]:
    return {
        "folder": "/srv/SENTINEL-FOLDER/corpus",
        "source": "support-messages.jsonl.gz",
        "shape": "text",
        "records": 5200,
        "units": 861,
        "characters": 1_284_310,
        "duplicates": 14,
        "largest_unit": 19,
        "has_units": True,
        "refused": {"no text": 3},
        "fingerprint": hexes("corpus"),
    }


def _scrubbed() -> dict[str, Any]:
    planted = {
        "PERSON": (60, 57),
        "LOCATION": (30, 26),
        "ORGANIZATION": (30, 24),
        "DATE_TIME": (20, 19),
        "EMAIL_ADDRESS": (20, 20),
        "PHONE_NUMBER": (20, 20),
        "STREET_ADDRESS": (20, 18),
        "RECORD_NUMBER": (20, 20),
        "IBAN_CODE": (10, 10),
        "US_SSN": (10, 10),
    }
    total = tuple(map(sum, zip(*planted.values(), strict=True)))
    counts = {
        "PERSON": 9120,
        "DATE_TIME": 6034,
        "LOCATION": 2877,
        "ORGANIZATION": 1932,
        "PHONE_NUMBER": 1490,
        "EMAIL_ADDRESS": 1377,
        "RECORD_NUMBER": 1105,
        "STREET_ADDRESS": 842,
        "URL": 166,
        "IBAN_CODE": 131,
        "US_SSN": 98,
        "NRP": 61,
        "IP_ADDRESS": 22,
        "CREDIT_CARD": 9,
    }
    return {
        "folder": "/srv/SENTINEL-FOLDER/scrubbed",
        "records": 5200,
        "changed": 5071,
        "entities": counts,
        "detector": "default",
        "operator": "placeholder",
        "digest": hexes("scrubbed"),
        "recall": [
            {"entity": entity, "planted": n, "found": k, "low": low(k, n)}
            for entity, (n, k) in {**planted, "ALL": total}.items()
        ],
        "seconds": 71.4,
        **copy.deepcopy(more.SCRUBBED),
    }


def low(found: int, planted: int) -> float:
    """One-sided 95 % Clopper–Pearson lower bound."""
    from scipy.stats import beta

    return float(beta.ppf(0.05, found, planted - found + 1)) if found else 0.0


def _planted() -> dict[str, Any]:
    return {
        "folder": "/srv/SENTINEL-FOLDER/planted",
        "train_records": 4811,
        "train_units": 4811,
        "held_out_records": 518,
        "held_out_units": 86,
        "secrets": 256,
        "secrets_included": 129,
        "canaries": 256,
        "included": 129,
        "manifest_digest": hexes("manifest"),
        "digest": hexes("planted"),
    }


def _trained() -> dict[str, Any]:
    mechanism = {
        "unit": "record",
        "units": 4811,
        "expected_batch": 256,
        "steps": 40,
        "noise_multiplier": 0.6312,
        "clipping_norm": 1.0,
        "delta": 4811**-1.1,
        "adjacency": "add_or_remove_one",
    }
    return {
        "folder": "/srv/SENTINEL-FOLDER/trained",
        "adapter": "/srv/SENTINEL-FOLDER/trained/adapter",
        "adapter_digest": hexes("adapter"),
        "mechanism": mechanism,
        "steps": 40,
        "noisy_steps": 40,
        "updates": 40,
        "epsilon": 7.983,
        "delta": mechanism["delta"],
        "epsilon_prv": 7.991,
        "group_epsilon": {"2": 17.42, "10": 128.61},
        "records": 4811,
        "records_cut": 37,
        "tokens_per_second": 2140.0,
        "seconds": 88.2,
        "manifest_digest": hexes("manifest"),
        "base": base(),
        "empty_draws": 0,
        "lost_gradients": 0,
        "gradients": "direct",
    }


def figure(dotted: str, value: float, low: float | None, high: float | None, n: int, method: str, **more: Any) -> Any:
    return {"name": dotted, "value": value, "low": low, "high": high, "n": n, "method": method} | {
        "conditions": more.get("conditions", {}),
        "resolvable": more.get("resolvable", True),
        "seconds": more.get("seconds", 0.4),
    }


def _evidence() -> dict[str, Any]:
    bootstrap = "2,000 stratified bootstraps"
    one_run = "one-run audit, Steinke et al. 2023, k fixed before training"
    rows = [
        ("privacy.epsilon", 7.983, None, None, 40, "PLD accountant over the steps taken"),
        ("epsilon.lower_bound", 0.213, 0.213, None, 256, one_run),
        ("epsilon.reachable", 3.746, None, None, 256, one_run + ", all guesses right"),
        ("exposure.family_p", 0.412, None, None, 64, "exact rank, smallest p over all planted secrets"),
        ("exposure.mean_p", 0.083, None, None, 64, "sum of exposures against Gamma(m, 1)"),
        ("exposure.mean_bits", 1.71, 1.40, 2.03, 64, "exact rank among 110,592 candidates"),
        ("exposure.control_mean_bits", 1.24, 0.98, 1.52, 64, "exact rank among 110,592 candidates"),
        ("epsilon.claim_p", 0.91, None, None, 256, one_run + ", p of the claimed ε"),
        ("membership.loss.auc", 0.507, 0.471, 0.543, 1000, f"loss attack, {bootstrap}"),
        ("membership.loss.tpr_at_1", 0.012, 0.004, 0.026, 1000, "Clopper–Pearson"),
        ("membership.ratio.auc", 0.521, 0.485, 0.557, 1000, f"loss minus base loss, {bootstrap}"),
        ("membership.ratio.tpr_at_1", 0.016, 0.007, 0.031, 1000, "Clopper–Pearson"),
        ("membership.splitter.auc", 0.503, 0.467, 0.539, 1000, "bag of words without the model"),
        ("scrub.recall", 0.9333, 0.9013, None, 240, "found of planted, Clopper–Pearson"),
        ("utility.base_perplexity", 318.4, 296.1, 342.9, 400, "held-out records, bootstrap over records"),
        ("utility.perplexity", 96.7, 90.2, 103.8, 400, "held-out records, bootstrap over records"),
        ("utility.perplexity_ratio", 0.3037, 0.2881, 0.3198, 400, "paired bootstrap over records"),
        ("utility.base_accuracy", 0.241, 0.232, 0.250, 400, "next token, held-out records"),
        ("utility.accuracy", 0.386, 0.376, 0.396, 400, "next token, held-out records"),
    ]
    figures = {row[0]: figure(*row) for row in rows} | more.figures(figure)
    figures["epsilon.lower_bound"]["conditions"] = {"independent_coins": True, "guesses_fixed_before": True}
    figures["membership.ratio.tpr_at_01"] = figure(
        "membership.ratio.tpr_at_01", 0.0, None, None, 1000, "needs 3,000 non-members", resolvable=False
    )
    return {
        "folder": "/srv/SENTINEL-FOLDER/evidence",
        "figures": figures,
        "series": _series(),
        "digest": hexes("evidence"),
        "seconds": {"exposure": 31.0, "membership": 12.2, "utility": 9.1, "epsilon": 11.4},
    }


def _series() -> dict[str, Any]:
    chance = random.Random(7)

    def bits() -> list[float]:
        return [math.log2(110_592) - math.log2(chance.randint(1, 110_592)) for _ in range(64)]

    grid = [10 ** (-2.7 + 2.7 * i / 39) for i in range(40)]
    series: dict[str, Any] = {"exposure.planted": bits(), "exposure.control": bits()}
    for attack, power in (("loss", 0.99), ("ratio", 0.95)):
        values = [min(1.0, x**power * (1 + 0.06 * chance.gauss(0, 1) * (1 - x))) for x in grid]
        series[f"membership.{attack}.roc"] = [list(pair) for pair in zip(grid, values, strict=True)]
        series[f"membership.{attack}.roc_band"] = [
            [x, max(0.0, y - 2 * math.sqrt(y / 500)), min(1.0, y + 2 * math.sqrt(y / 500))]
            for x, y in zip(grid, values, strict=True)
        ]
    return series | copy.deepcopy(more.SERIES)


def _verdict() -> dict[str, Any]:
    rows = [
        ("epsilon_spent", "privacy.epsilon", 7.983, 7.983, 8, "data protection officer"),
        ("epsilon_bound", "epsilon.lower_bound", 0.213, 0.213, 2.5, "data protection officer"),
        ("exposure", "exposure.family_p", 0.412, 0.412, 0.01, "data protection officer"),
        ("membership", "membership.ratio.auc", 0.521, 0.557, 0.6, "data protection officer"),
        ("scrub_recall", "scrub.recall", 0.9333, 0.9013, 0.9, "data protection officer"),
        ("utility", "utility.perplexity_ratio", 0.3037, 0.3198, 1.0, "model owner"),
    ]
    gates = [
        {
            "name": name,
            "figure": dotted,
            "passed": True,
            "value": value,
            "bound": bound,
            "limit": limit,
            "why": f"{dotted} is {value:g}; {bound:g} keeps the limit {limit:g}.",
            "owner": owner,
        }
        for name, dotted, value, bound, limit, owner in rows
    ]
    return {"status": "released", "gates": gates, "reasons": []}
