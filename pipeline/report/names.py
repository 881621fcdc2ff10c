"""What the figures of the evidence and the rules on them are called in plain English, and how each is written.

A figure that is not listed here is still shown, under its dotted name.
"""

from __future__ import annotations

from typing import NamedTuple


class Name(NamedTuple):
    """Plain title of a figure, its format, the question its gate asks, and what to try when that gate fails."""

    title: str
    format: str
    question: str
    remedy: str


_RAISE = "Spend less: lower privacy.epsilon or train.steps, or bring more people's records, and run again."
_LEAK = (
    "Do not release these weights. Lower privacy.epsilon and train.steps and look for values that many records share; "
    "if it fails again at a small ε, treat it as a defect in training and report it."
)

NAMES: dict[str, Name] = {
    "privacy.epsilon": Name("Privacy loss spent (ε)", "upper", "Is the privacy spent within its limit?", _RAISE),
    "epsilon.lower_bound": Name(
        "Privacy loss proven by attack (ε)",
        "lower",
        "Does an attack contradict the promise?",
        "Do not release these weights and do not simply run again: an attack that proves more than the promise points to a "
        "defect in training or accounting. Keep the run folder and have it examined.",
    ),
    "epsilon.reachable": Name("Largest ε this audit could have proven", "lower", "", ""),
    "exposure.family_p": Name("Planted secrets against chance (p)", "number", "Was a planted secret memorised?", _LEAK),
    "exposure.mean_p": Name(
        "Planted secrets on average against chance (p)", "number", "Was a planted secret memorised?", _LEAK
    ),
    "extraction.either_excess": Name(
        "Records that come out word for word, beyond chance", "percent", "Can training records be extracted?", _LEAK
    ),
    "exposure.first": Name("Personal secrets that the model gives first", "percent", "", ""),
    "residual.risk": Name("Personal values that are missed and given first", "percent", "", ""),
    "games.values_left_in_training": Name("Removed values left in the training text", "number", "", ""),
    "epsilon.correct_guesses": Name("Right guesses about planted secrets", "percent", "", ""),
    "privacy.delta": Name("Slack of the limit (δ)", "scientific", "Is the privacy spent within its limit?", _RAISE),
    "scrub.recall": Name(
        "Personal values found by the scrubber",
        "percent",
        "Does the scrubber find what it should?",
        "See in the scrubbing table which kind of value is missed; add its type to scrub.entities or lower "
        "scrub.minimum_score, and raise scrub.probes if only the interval is too wide.",
    ),
    "utility.perplexity_ratio": Name(
        "Perplexity against the base model",
        "number",
        "Is the model worth it?",
        "Give the training more to learn from: more records, a larger train.expected_batch, more train.steps at the same ε, "
        "or a better base model.",
    ),
    "utility.base_perplexity": Name("Perplexity of the base model", "number", "", ""),
    "utility.perplexity": Name("Perplexity of the tuned model", "number", "", ""),
    "utility.base_accuracy": Name("Next-token accuracy of the base model", "percent", "", ""),
    "utility.accuracy": Name("Next-token accuracy of the tuned model", "percent", "", ""),
    "utility.public_perplexity": Name("Perplexity of the base model after public text", "number", "", ""),
    "utility.public_ratio": Name("Perplexity after public text against the base model", "number", "", ""),
    "utility.public_accuracy": Name("Next-token accuracy of the base model after public text", "percent", "", ""),
}

ANSWERS = {"exact_match": "Exact match", "rouge_l": "ROUGE-L", "next_token_accuracy": "Next-token accuracy"}
_MODELS = {"utility.base_": "base model", "utility.": "tuned model", "control.utility.": "control without privacy"}
_ASKED = "Does it answer as the records do?"
_BETTER = "Try more records or a better base model, or look whether completions are longer than audit.completion_tokens."
NAMES |= {
    f"{prefix}{key}": Name(f"{title} of answers to held-out prompts, {who}", "percent", _ASKED, _BETTER)
    for prefix, who in _MODELS.items()
    for key, title in ANSWERS.items()
}

ATTACKS = {
    "loss": "Loss",
    "ratio": "Ratio to base",
    "zlib": "Loss over compressed size",
    "min_k": "Min-K\u00a0%",
    "min_k_plus": "Min-K\u00a0%++",
    "rmia": "RMIA",
    "worst": "Strongest of all",
    "splitter": "Control: words, no model",
}
METRICS = {
    "auc": ("AUC", "number"),
    "tpr_at_1": ("Found at 1\u00a0% false alarms", "percent"),
    "tpr_at_01": ("Found at 0.1\u00a0% false alarms", "percent"),
}
_MEMBERSHIP = (
    "Members stand out: lower privacy.epsilon or train.steps, bring more records, and remove duplicates, which are "
    "memorised first."
)
_ENTITIES = {
    "ALL": "All kinds",
    "DATE_TIME": "Date or time",
    "NRP": "Origin, faith, politics",
    "AMOUNT": "Sum, measure or term",
    "TRAIT": "Occupation, health, family",
    "EMAIL_ADDRESS": "E-mail address",
    "US_SSN": "US social security",
    "US_ITIN": "US taxpayer number",
    "UK_NHS": "UK NHS number",
    "UK_NINO": "UK national insurance",
    "CRYPTO": "Crypto wallet",
}
_ACRONYMS = {"US", "UK", "IP", "MAC", "IBAN", "URL", "ID", "API"}
_PREFIXES = {"scrub": "percent", "extraction": "percent", "games": "percent"}

STATUS = {
    "released": "Released",
    "rejected": "Rejected",
    "awaiting_approval": "Awaiting approval",
    "inconclusive": "Inconclusive",
}
OPERATORS = {
    "placeholder": "the name of its kind, such as <PERSON>",
    "redact": "nothing",
    "mask": "asterisks",
    "hash": "a keyed hash, the same for equal values",
    "encrypt": "its ciphertext, which the key turns back",
    "surrogate": "an invented value of the same kind",
}


def name(figure: str) -> Name:
    """The plain name of a figure; made up from its dotted name where it is not listed."""
    if figure in NAMES:
        return NAMES[figure]
    family, *rest = figure.split(".")
    if family == "membership" and len(rest) == 2:
        title, format = METRICS.get(rest[1], (words(rest[1]), "number"))
        attack = ATTACKS.get(rest[0], words(rest[0]))
        attack = attack[:1].lower() + attack[1:] if attack[1:2].islower() else attack
        return Name(f"Membership attack, {attack} ({title})", format, "Can an attacker tell who was in the data?", _MEMBERSHIP)
    if figure.startswith("games.values_left_in_training."):
        return Name(f"Removed values left in the training text: {entity(rest[-1]).lower()}", "number", "", "")
    return Name(words(figure), _PREFIXES.get(family, "number"), "", "Look the figure up in the table of all figures.")


def symbol(figure: str) -> str:
    """What stands before a figure's number where there is no room for its title; empty where the number speaks for itself."""
    if figure.endswith("_p"):
        return "p"
    if figure.endswith(".auc"):
        return "AUC"
    return _SYMBOLS.get(figure, "")


_SYMBOLS = {"privacy.epsilon": "ε", "epsilon.lower_bound": "ε ≥", "privacy.delta": "δ", "utility.perplexity_ratio": "ratio"}


def entity(kind: str) -> str:
    """A Presidio entity type as words: `EMAIL_ADDRESS` → E-mail address."""
    if kind in _ENTITIES:
        return _ENTITIES[kind]
    parts = [part if part in _ACRONYMS else part.lower() for part in kind.split("_")]
    text = " ".join(parts)
    return text[:1].upper() + text[1:]


def words(identifier: str) -> str:
    """An identifier as words: `exposure.mean_planted` → Exposure, mean planted."""
    if identifier in ("cpu", "gpu"):
        return identifier.upper()
    text = identifier.replace(".", ", ").replace("_", " ")
    return text[:1].upper() + text[1:]
