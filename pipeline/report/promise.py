"""What a run promises and what it does not, in words that a reader without mathematics can hold it to.

The arithmetic is that of (ε, δ)-differential privacy: a factor e^ε on the odds, so that a belief of one half becomes at most
e^ε / (1 + e^ε), and k·ε for a group of k (Dwork and Roth 2014, sections 2.3 and 3.5). The three strengths are those of
Ponomareva et al. 2023, "How to DP-fy ML", section 5.2.
"""

from __future__ import annotations

import math
from typing import Any

from pipeline.report.formats import count, number, one_in, percent, plain, plural, share


def promise(policy: dict[str, Any], trained: dict[str, Any], data: dict[str, Any], scrubbing: dict[str, Any]) -> dict[str, Any]:
    """The promise section: unit, adjacency, ε and δ with their meaning, what is not promised, and what is public."""
    unit = trained["mechanism"]["unit"]
    epsilon, delta = trained["epsilon"], trained["delta"]
    certainty = 1 / (1 + math.exp(-epsilon))
    return {
        "finding": f"What an outsider can learn from this model about any one {unit} of the data is limited, by proof.",
        "unit": unit,
        "adjacency": trained["mechanism"]["adjacency"],
        "epsilon": epsilon,
        "epsilon_limit": policy["privacy"]["epsilon"],
        "delta": delta,
        "odds_factor": math.exp(min(epsilon, 700)),
        "certainty_from_half": certainty,
        "strength": _strength(epsilon),
        "terms": [
            {"term": f"Protected: one {unit}", "text": _unit(unit, policy, data)},
            {"term": f"Compared: with and without that {unit}", "text": _adjacency(unit)},
            {"term": f"ε = {number(epsilon)}: how much can leak at worst", "text": _epsilon(unit, epsilon, certainty)},
            {"term": f"δ = {one_in(delta)}: how often the limit may not hold", "text": _delta(delta, trained, unit)},
        ],
        "not_promised": _limits(unit, policy, data, scrubbing, epsilon),
        "public": [
            "this report, the policy and the model card",
            "the weights of the adapter, and the base model by name and digest",
            f"the mechanism: sampling rate, noise, clipping norm, number of steps, δ and the number of {unit}s, "
            "from which some of these follow",
            "the planted secrets, their coins and their scores; they are random text and belong to nobody",
        ],
    }


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
        f"The limit holds between the model trained with a {unit} and the one trained without: adding or removing that {unit} "
        "changes how likely any resulting model is only within it. It holds against an attacker with any computing power and "
        "any other knowledge, and nothing done with the weights later can weaken it."
    )


def _epsilon(unit: str, epsilon: float, certainty: float) -> str:
    factor = number(math.exp(min(epsilon, 700)))
    return (
        f"The odds of any guess about a {unit} can change by a factor of at most {factor}. Someone who held a {unit}'s "
        f"presence for an even chance can in the worst case become {percent(certainty)} sure. {_strength(epsilon)} "
        "How far real attacks came is measured below."
    )


def _strength(epsilon: float) -> str:
    if epsilon <= 1:
        kind = "up to 1 is a strong guarantee, and this is one"
    elif epsilon <= 10:
        kind = "up to 1 is a strong guarantee, up to 10 a reasonable one, and this is of the second kind"
    else:
        kind = "above 10 is a weak guarantee by itself, and this is one"
    return f"By the scale of Ponomareva et al. (2023), an ε of {kind}."


def _delta(delta: float, trained: dict[str, Any], unit: str) -> str:
    units = trained["mechanism"]["units"]
    return (
        f"With a probability of at most {one_in(delta)} the limit may fail. It is set below one in the number of {unit}s "
        f"trained on ({count(units)}), so that a mechanism which simply publishes one {unit} at random would not pass."
    )


def _limits(
    unit: str, policy: dict[str, Any], data: dict[str, Any], scrubbing: dict[str, Any], epsilon: float
) -> list[dict[str, str]]:
    return [
        {"title": "What the scrubber missed", "text": _missed(scrubbing)},
        {"title": f"Groups of {unit}s", "text": _groups(unit, data, epsilon)},
        {
            "title": "What is true of people in general",
            "text": "A model may learn from everyone that a habit and an illness go together. That can be told of a person who "
            "was never in the data, and differential privacy does not prevent it.",
        },
        {
            "title": "Statistics outside the guarantee",
            "text": "The counts, lengths and duplicates of this report, the sampling rate q that follows from the number of "
            f"{unit}s n, recall, held-out perplexity and accuracy, and the results of the attacks are computed on the private "
            "data without noise. They are aggregates, but ε does not cover them: share this report accordingly.",
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
    if overall is not None:
        measured = (
            f"Of {count(overall['planted'])} values planted to test it, it found {count(overall['found'])}; with "
            f"{share(scrubbing['confidence'])} confidence it finds at least {percent(overall['low'])} of values like those. "
            "Real text holds forms that nobody planted."
        )
    return f"Scrubbing is a filter, not a proof. {measured} What it misses is trained on, under the same limit ε as the rest."


def _groups(unit: str, data: dict[str, Any], epsilon: float) -> str:
    twice, tenfold = plain(2), plain(10)
    of = "of the same person" if unit == "record" else "who share a household or a secret"
    extra = ""
    if unit == "record" and data["has_units"] and data["largest_unit"] > 1:
        extra = f" The largest unit here holds {plural(data['largest_unit'], 'record')}."
    return (
        f"The limit grows with the group: for {twice} {unit}s {of} it is twice ε ({number(2 * epsilon)}), for {tenfold} ten "
        f"times. What many {unit}s have in common can be learned.{extra}"
    )
