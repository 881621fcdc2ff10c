"""What a run promises and what it does not, in words that a reader without mathematics can hold it to.

The arithmetic is that of (ε, δ)-differential privacy: no outcome becomes more than e^ε times as likely, plus δ. Leaving δ
aside, that is a factor e^ε on the odds, so that a belief of one half becomes at most e^ε / (1 + e^ε) (Dwork and Roth 2014,
section 2.3). δ is no probability that this fails: that one can be larger. k·ε holds for a group of k only at a larger δ, so
the ε of a group at the run's own δ is not computed here but taken from the accountant. The three strengths are those of
Ponomareva et al. 2023, "How to DP-fy ML", section 5.2.
"""

from __future__ import annotations

import math
from typing import Any

from pipeline.report.formats import count, percent, percent_upper, plural, scientific, share, upper

_GROUPS = {"2": "two", "10": "ten"}


def promise(policy: dict[str, Any], trained: dict[str, Any], data: dict[str, Any], scrubbing: dict[str, Any]) -> dict[str, Any]:
    """The promise section: unit, adjacency, ε and δ with their meaning, what is not promised, and what is public."""
    unit = trained["mechanism"]["unit"]
    epsilon, delta = trained["epsilon"], trained["delta"]
    groups = {size: (trained.get("group_epsilon") or {}).get(size) for size in _GROUPS}
    certainty = 1 / (1 + math.exp(-epsilon))
    adapted = policy.get("continued_pretraining") is not None
    chosen = policy["train"].get("selection") is not None
    return {
        "finding": f"What an outsider can learn from this model about any one {unit} of the data is limited, by proof.",
        "brief": _brief(unit, epsilon, data, scrubbing),
        "unit": unit,
        "adjacency": trained["mechanism"]["adjacency"],
        "epsilon": epsilon,
        "epsilon_limit": policy["privacy"]["epsilon"],
        "delta": delta,
        "units": trained["mechanism"]["units"],
        "units_times_delta": trained["mechanism"]["units"] * delta,
        "group_epsilon": groups,
        "odds_factor": math.exp(min(epsilon, 700)),
        "certainty_from_half": certainty,
        "strength": _strength(epsilon),
        "terms": [
            {"term": f"Protected: one {unit}", "text": _unit(unit, policy, data)},
            {"term": f"Compared: with and without what that {unit} contributes", "text": _adjacency(unit)},
            {"term": f"ε = {upper(epsilon)}: how much can leak at worst", "text": _epsilon(unit, epsilon, certainty)},
            {"term": "Slack of the limit (δ)", "text": _delta(delta, trained["mechanism"]["units"], unit)},
        ],
        "not_promised": _limits(unit, policy, data, scrubbing, groups),
        "public": [
            "this report, the policy and the model card",
            "the weights of the adapter, and the base model by name and digest",
            f"the mechanism: sampling rate, noise, clipping norm, number of steps, δ and the number of {unit}s, "
            "from which some of these follow",
            "the planted secrets, their coins and their scores; they are random text and belong to nobody",
            *(["the text of continued pretraining (continued_pretraining.public_data)"] if adapted else []),
            *(["the records by which the released step was chosen (train.selection.public_data)"] if chosen else []),
        ],
    }


def _brief(unit: str, epsilon: float, data: dict[str, Any], scrubbing: dict[str, Any]) -> dict[str, str]:
    """Both sides in one breath each, for the first screen."""
    factor = upper(math.exp(min(epsilon, 700)))
    overall = scrubbing["overall"] or {}
    lows = [overall[key] for key in ("low", "context_low") if overall.get(key) is not None]
    missed = "(how much was not measured)"
    if lows:  # the worst that was measured: a first screen may not pick the kinder one
        missed = f"(of values planted to test it, it finds at least {percent(min(lows))})"
    return {
        "promised": f"What anyone who has this model can learn of any one {unit} is limited, by proof: "
        f"ε = {upper(epsilon)}, so that the odds of any guess about it change by a factor of at most {factor}, apart from δ. "
        f"{_strength(epsilon)}",
        "not_promised": _persons(unit, data) + f"That the scrubber found everything {missed}; "
        f"that what many {unit}s have in common stays hidden; "
        "anything about the statistics in this report, which are computed without noise.",
    }


def _persons(unit: str, data: dict[str, Any]) -> str:
    """A record is no person: said before all else, for readers who think of people."""
    if unit != "record":
        return ""
    most = f" (here up to {count(data['largest_unit'])})" if data["has_units"] and data["largest_unit"] > 1 else ""
    return f"Protection of a person as a whole: whoever has several records{most} is protected less. "


def _unit(unit: str, policy: dict[str, Any], data: dict[str, Any]) -> str:
    if unit == "person":
        limit = count(policy["privacy"]["records_per_unit"])
        return (
            f"All records of a person count as one. Whatever they wrote, and however often, their influence on a training step "
            f"is limited to that of one person; at most {limit} of their records enter a step."
        )
    return "Each record counts alone. A person with several records is protected less: see Groups of records."


def _adjacency(unit: str) -> str:
    return (
        f"This run is compared with a run in which that {unit} had contributed nothing; the number of {unit}s is public. How "
        "likely any resulting model is differs between the two only within the limit. It holds against an attacker with any "
        "computing power and any other knowledge, and nothing done with the weights later can weaken it."
    )


def _epsilon(unit: str, epsilon: float, certainty: float) -> str:
    factor = upper(math.exp(min(epsilon, 700)))
    return (
        f"Apart from δ, the odds of any guess about a {unit} can change by a factor of at most {factor}. Someone who held a "
        f"{unit}'s presence for an even chance can in the worst case become {percent_upper(certainty)} sure. "
        f"{_strength(epsilon)} How far real attacks came is measured below."
    )


def _strength(epsilon: float) -> str:
    if epsilon <= 1:
        kind = "up to 1 is a strong guarantee, and this is one"
    elif epsilon <= 10:
        kind = "up to 1 is a strong guarantee, up to 10 a reasonable one, and this is of the second kind"
    else:
        kind = "above 10 is a weak guarantee by itself, and this is one"
    return f"By the scale of Ponomareva et al. (2023), an ε of {kind}."


def _delta(delta: float, units: int, unit: str) -> str:
    return (
        f"No outcome becomes more than e^ε times as likely, plus δ, here {scientific(delta)}. With n the number of {unit}s "
        f"({count(units)}), n·δ = {upper(units * delta)}: it must be below one, and smaller is safer."
    )


def _limits(
    unit: str, policy: dict[str, Any], data: dict[str, Any], scrubbing: dict[str, Any], groups: dict[str, float | None]
) -> list[dict[str, str]]:
    return [
        {"title": "What the scrubber missed", "text": _missed(scrubbing)},
        {"title": f"Groups of {unit}s", "text": _groups(unit, data, groups)},
        {
            "title": "What is true of people in general",
            "text": "A model may learn from everyone that a habit and an illness go together. That can be told of a person who "
            "was never in the data, and differential privacy does not prevent it.",
        },
        {
            "title": "What stands outside the guarantee",
            "text": "The counts, lengths and duplicates of this report, the sampling rate q that follows from the number of "
            f"{unit}s n, recall, held-out perplexity and accuracy, and the results of the attacks are computed on the private "
            "data without noise. So is the verdict itself: whether the model is released depends on the scores of held-out "
            "records and of members. They are aggregates, but ε does not cover them: share this report accordingly. The counts "
            "of lost gradients (lost_gradients) and of steps without anyone (empty_draws) tell who was drawn; they are not "
            "published and stay in privacy.json of the run folder.",
        },
        {
            "title": "The held-out records and the base model",
            "text": f"The {plural(data['held_out_records'], 'held-out record')} never touched the weights; only the figures "
            "measured on them are known outside. What the base model learned before this run is not covered.",
        },
        {
            "title": "Other uses of the same data",
            "text": f"The lifetime budget {policy['privacy']['lifetime']['budget']} adds up the runs that were charged to it. "
            "Models trained elsewhere, or under another budget, spend on top of it.",
        },
        {
            "title": "Faults in the software",
            "text": "The proof speaks of exact arithmetic and perfect randomness. The attacks below can show that something is "
            "broken; that they find nothing does not prove that nothing is.",
        },
    ]


def _missed(scrubbing: dict[str, Any]) -> str:
    overall = scrubbing["overall"]
    measured = "Its recall was not measured in this run."
    if overall is not None and overall["planted"]:
        measured = (
            f"Of {count(overall['planted'])} values planted to test it, it found {count(overall['found'])}; with "
            f"{share(scrubbing['confidence'])} confidence it finds at least {percent(overall['low'])} of values like those. "
            f"{_in_records(overall)}Real text holds forms that nobody planted."
        )
    return f"Scrubbing is a filter, not a proof. {measured} What it misses is trained on, under the same limit ε as the rest."


def _in_records(overall: dict[str, Any]) -> str:
    if not overall["context_planted"]:
        return ""
    return (
        f"Planted in records of the data it found {count(overall['context_found'])} of {count(overall['context_planted'])}, at "
        f"least {percent(overall['context_low'])}. "
    )


def _groups(unit: str, data: dict[str, Any], groups: dict[str, float | None]) -> str:
    of = "of the same person" if unit == "record" else "who share a household or a secret"
    extra = ""
    if unit == "record" and data["has_units"] and data["largest_unit"] > 1:
        extra = f" The largest unit here holds {plural(data['largest_unit'], 'record')}."
    return (
        f"The limit grows with the group, and faster than its size. {_group_limits(unit, of, groups)} What many {unit}s have "
        f"in common can be learned.{extra}"
    )


def _group_limits(unit: str, of: str, groups: dict[str, float | None]) -> str:
    """ε of groups at the run's own δ, those that are known."""
    known = {_GROUPS[size]: upper(limit) for size, limit in groups.items() if limit is not None}
    if not known:
        return f"How large it is at the same δ for several {unit}s {of} together was not computed, or is not finite."
    first, *rest = known.items()
    parts = [f"{first[0]} {unit}s {of} together: ε ≤ {first[1]}", *(f"{size}: ε ≤ {limit}" for size, limit in rest)]
    missing = [word for word in _GROUPS.values() if word not in known]
    parts += [f"{word}: no finite limit is known" for word in missing]
    return f"At the same δ, {'; '.join(parts)}."
