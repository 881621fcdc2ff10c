"""Which way each key of a policy is tighter: a child may only tighten its parent, and `policy diff` says in words what changed.

    changes(load("default"), load("strict"))     # [Change(key="privacy.epsilon", old=8, new=3, direction="tighter", …), …]

A key is judged by what it does to the promise, to the evidence that is asked for, or to how long text is kept. Keys that only
describe the data, name things or set the training schedule (its noise is calibrated to the promise) may change freely. What
cannot be compared is not tighter. A parent is a preset or a file that somebody stands for; `base` is a list of starting
values that promises nothing, so its children may change them in any direction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipeline.errors import PolicyError

if TYPE_CHECKING:
    from pipeline.policy import Gate, Policy

Direction = Literal["tighter", "looser", "incomparable", "free"]
STARTING_VALUES = "base"  # promises nothing, so that its children may change what it says in any direction


class Change(NamedTuple):
    """One key that differs, which way it moved, and what it governs."""

    key: str
    old: Any
    new: Any
    direction: Direction
    about: str


class Rule(NamedTuple):
    """How a key is compared, and what it governs, in words."""

    compare: Callable[[Any, Any], Direction]
    about: str


def _free(old: Any, new: Any) -> Direction:
    return "free"


def _same(old: Any, new: Any) -> Direction:
    return "incomparable"


def _less(old: Any, new: Any) -> Direction:
    """Less is tighter; None is without end."""
    before, after = (math.inf if value is None else value for value in (old, new))
    return "tighter" if after < before else "looser"


def _more(old: Any, new: Any) -> Direction:
    return "tighter" if new > old else "looser"


def _further(old: Any, new: Any) -> Direction:
    """More is tighter; None is all there is."""
    return "looser" if _less(old, new) == "tighter" else "tighter"


def _fewer(old: Any, new: Any) -> Direction:
    """A subset is tighter; another order changes nothing."""
    return _sets(set(new), set(old))


def _wider(old: Any, new: Any) -> Direction:
    return _sets(set(old), set(new))


def _sets(small: set, large: set) -> Direction:
    if small == large:
        return "free"
    return "tighter" if small < large else "looser"


def _towards(*values: Any) -> Callable[[Any, Any], Direction]:
    """Named values, the loosest first; those in one tuple are as tight as each other."""
    ranks = {value: rank for rank, one in enumerate(values) for value in (one if isinstance(one, tuple) else (one,))}

    def compare(old: Any, new: Any) -> Direction:
        if old not in ranks or new not in ranks:
            return "incomparable"
        if ranks[old] == ranks[new]:
            return "free"
        return "tighter" if ranks[new] > ranks[old] else "looser"

    return compare


def _delta(old: Any, new: Any) -> Direction:
    """`auto` depends on the number of units, so it is neither more nor less than a number."""
    return "incomparable" if isinstance(old, str) or isinstance(new, str) else _less(old, new)


_COLUMN = Rule(_free, "which column of the data is read")
_SCHEDULE = Rule(_free, "how training goes; its noise is calibrated to the promise")
_PUBLIC = Rule(_free, "what the base model learns from public text before private training")
_SAMPLE = Rule(_more, "how much an attack measures")

RULES: dict[str, Rule] = {
    "name": Rule(_free, "what the policy is called"),
    "description": Rule(_free, "what the policy is for"),
    "model": Rule(_free, "the base model"),
    "data.provenance": Rule(_free, "what is said of where the data comes from"),
    "data.text_column": _COLUMN,
    "data.prompt_column": _COLUMN,
    "data.completion_column": _COLUMN,
    "data.messages_column": _COLUMN,
    "data.id_column": _COLUMN,
    "data.unit_column": _COLUMN,
    "data.unit_pattern": Rule(_free, "what in the unit column is the unit"),
    "data.columns": Rule(_towards("keep", ("scrub", "hash"), ("drop", None)), "what becomes of a further column"),
    "data.limit": Rule(_free, "how many records are read"),
    "data.held_out": Rule(_free, "the share of units that is kept for the audit"),
    "data.max_tokens": Rule(_free, "how much of a record is trained on"),
    "data.overlong": Rule(_free, "what is done with long records"),
    "data.malformed": Rule(_free, "what is done with lines that cannot be read"),
    "scrub.detector": Rule(_towards("fast", "default", "high_recall"), "what finds personal data"),
    "scrub.model": Rule(_same, "the model that finds personal data"),
    "scrub.language": Rule(_free, "the language of the data"),
    "scrub.entities": Rule(_wider, "the kinds of personal data that are replaced"),
    "scrub.minimum_score": Rule(_less, "how sure the detector must be before it replaces"),
    "scrub.operator": Rule(
        _towards("encrypt", "hash", "surrogate", "mask", ("placeholder", "redact")), "what stands in the place of personal data"
    ),
    "scrub.consistency": Rule(_towards("corpus", "person"), "within what equal values stay recognisable as equal"),
    "scrub.locale": Rule(_free, "the language and country of surrogates"),
    "scrub.rescan": Rule(_towards("off", "auto"), "whether another detector scans what is left"),
    "scrub.rescan_records": Rule(_further, "the scrubbed records that are scanned again"),
    "scrub.sample": Rule(_more, "the records on which misses are measured"),
    "scrub.allow": Rule(_fewer, "the words that are never replaced"),
    "scrub.deny": Rule(_wider, "the words that are always replaced"),
    "scrub.countries": Rule(_wider, "the countries whose identifiers are replaced"),
    "scrub.recognizers": Rule(_same, "recognisers of the organisation's own"),
    "scrub.probes": Rule(_more, "the values planted to test the scrubber"),
    "canaries.preset": Rule(_free, "sizes of the canaries, where they are not given one by one"),
    "canaries.repetitions": Rule(_same, "how often the repeated secrets are planted"),
    "canaries.repeated": Rule(_more, "the repeated secrets planted to test memory"),
    "canaries.count": Rule(_more, "the secrets planted to test memory"),
    "canaries.prefix_tokens": Rule(_free, "the words before a secret"),
    "canaries.secret_tokens": Rule(_more, "the length of a secret"),
    "canaries.alphabet": Rule(_more, "the candidates for each word of a secret"),
    "canaries.guesses": Rule(_more, "the guesses of the attack on ε"),
    "privacy.epsilon": Rule(_less, "how much one run may reveal about a unit"),
    "privacy.delta": Rule(_delta, "the slack of that limit"),
    "privacy.unit": Rule(_towards("record", "person"), "who is protected"),
    "privacy.records_per_unit": Rule(_free, "how many records of a person enter a step; the limit holds for all together"),
    "privacy.lifetime.budget": Rule(_free, "which budget is charged; people of another one are refused"),
    "privacy.lifetime.also": Rule(_free, "other budgets whose people may be in the data; their charges and caps hold as well"),
    "privacy.lifetime.epsilon": Rule(_less, "how much all runs together may reveal about a unit"),
    "privacy.lifetime.delta": Rule(_less, "the slack of the lifetime limit"),
    "privacy.lifetime.on_exhausted": Rule(_same, "what happens when the budget is used up"),
    "continued_pretraining": _PUBLIC,
    "continued_pretraining.public_data": _PUBLIC,
    "continued_pretraining.epochs": _PUBLIC,
    "continued_pretraining.steps": _PUBLIC,
    "continued_pretraining.batch": _PUBLIC,
    "continued_pretraining.max_tokens": _PUBLIC,
    "continued_pretraining.learning_rate": _PUBLIC,
    "continued_pretraining.warmup": _PUBLIC,
    "continued_pretraining.rank": _PUBLIC,
    "continued_pretraining.seed": _PUBLIC,
    "continued_pretraining.overlap": Rule(
        _towards("count", ("refuse", None)), "whether private records may share words with the public text"
    ),
    "train.lora.rank": _SCHEDULE,
    "train.lora.alpha": _SCHEDULE,
    "train.lora.layers": _SCHEDULE,
    "train.lora.dropout": _SCHEDULE,
    "train.lora.dora": _SCHEDULE,
    "train.lora.also_train": _SCHEDULE,
    "train.epochs": _SCHEDULE,
    "train.selection": Rule(_free, "which step is released, by public data only"),
    "train.selection.rule": Rule(_free, "which step is released, by public data only"),
    "train.selection.public_data": Rule(_free, "the public records that choose a step"),
    "train.selection.every": Rule(_free, "steps between two looks at the public records"),
    "train.selection.patience": Rule(_free, "looks at the public records after which training ends"),
    "train.expected_batch": _SCHEDULE,
    "train.steps": _SCHEDULE,
    "train.learning_rate": _SCHEDULE,
    "train.clipping_norm": _SCHEDULE,
    "train.microbatch_tokens": _SCHEDULE,
    "train.reuse_gigabytes": _SCHEDULE,
    "train.seed": _SCHEDULE,
    "audit.alpha": Rule(_same, "the error probability of the bounds, which makes some gates stricter and others laxer"),
    "audit.membership_records": _SAMPLE,
    "audit.utility_records": _SAMPLE,
    "audit.completion_records": _SAMPLE,
    "audit.completion_tokens": Rule(_free, "how long the answers are that are held against the records' own"),
    "audit.extraction_records": _SAMPLE,
    "audit.prefix_tokens": Rule(_more, "how much of a record the extracting attacker knows"),
    "audit.suffix_tokens": Rule(_less, "how much must come out to count as extracted"),
    "audit.samples": _SAMPLE,
    "audit.games_values": _SAMPLE,
    "audit.control": Rule(_towards(False, True), "whether the attacks are shown to see a leak"),
    "audit.exposure_canaries": _SAMPLE,
    "release.approval": Rule(_towards("none", "required"), "whether a person must say yes"),
    "release.approval_days": Rule(_less, "how long a yes can be given"),
    "release.four_eyes": Rule(_towards(False, True), "whether the approver must be another than the submitter"),
    "release.inconclusive": Rule(_towards("release", "reject"), "whether a figure that could not be resolved stops a release"),
    "release.quarantine_days": Rule(_less, "how long rejected weights are kept"),
    "retention.raw_days": Rule(_less, "how long raw text is kept"),
    "retention.scrubbed_days": Rule(_less, "how long scrubbed text is kept"),
    "retention.checkpoint_days": Rule(_less, "how long checkpoints are kept"),
    "retention.review_days": Rule(_less, "how long review pages and tracebacks are kept"),
}

_UNKNOWN = Rule(_same, "a key whose direction is not known")
_GATE = {
    "figure": Rule(_same, "the figure that a gate judges"),
    "at_most": Rule(_less, "the most that a gate lets pass"),
    "at_least": Rule(_more, "the least that a gate lets pass"),
    "waivable": Rule(_towards(True, False), "whether a signed waiver can lift a gate"),
    "why": Rule(_free, "why there is a gate"),
    "owner": Rule(_free, "who answers for a gate"),
}


def changes(old: Policy, new: Policy) -> list[Change]:
    """Every key that differs between two resolved policies, in the policy's order, gates last."""
    before, after = leaves(old.model_dump(mode="json")), leaves(new.model_dump(mode="json"))
    found = []
    for key in [key for key in (before | after) if not key.startswith("gates.")]:
        if before.get(key) != after.get(key):
            rule, pair = _rule(key), (before.get(key), after.get(key))
            found.append(Change(key, *pair, rule.compare(*pair), rule.about))
    for name in [*old.gates, *(name for name in new.gates if name not in old.gates)]:
        found += _gate_changes(name, old, new)
    return found


def _rule(key: str) -> Rule:
    """The rule of a key, or of the mapping that the key is an entry of."""
    return RULES.get(key) or RULES.get(key.rpartition(".")[0], _UNKNOWN)


def leaves(content: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted key."""
    if not isinstance(content, dict):
        return {path: content}
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= leaves(value, f"{path}.{key}" if path else key)
    return found


def _gate_changes(name: str, old: Policy, new: Policy) -> list[Change]:
    before, after = old.gates.get(name), new.gates.get(name)
    key = f"gates.{name}"
    if before is None or after is None:
        direction: Direction = "tighter" if before is None else "looser"
        old_gate, new_gate = (gate.model_dump(mode="json") if gate else None for gate in (before, after))
        return [Change(key, old_gate, new_gate, direction, "a rule of the verdict")]
    found = []
    for field in type(before).model_fields:
        spelled = getattr(before, field), getattr(after, field)
        pair = _limit(spelled[0], old), _limit(spelled[1], new)
        if spelled == pair and pair[0] == pair[1]:
            continue
        rule = Rule(_judge(before), "which end of the interval a gate judges") if field == "judge" else _GATE[field]
        missing = field in ("at_most", "at_least") and None in pair
        direction = "incomparable" if missing else "free" if pair[0] == pair[1] else rule.compare(*pair)
        if spelled[0] != spelled[1] or direction == "looser":
            found.append(Change(f"{key}.{field}", *spelled, direction, rule.about))
    return found


def _limit(value: Any, policy: Policy) -> Any:
    return policy.privacy.epsilon if value == "privacy.epsilon" else value


def _judge(gate: Gate) -> Callable[[Any, Any], Direction]:
    """The end of the interval that is nearer to the limit is the more cautious one."""
    return _towards("low", "value", "high") if gate.at_most is not None else _towards("high", "value", "low")


def check_name(policy: Policy) -> None:
    """Refuse a policy that goes by the name of a preset and is laxer: a report that says `strict` must mean it.

    Raises:
        PolicyError: a key is looser than the preset's, or cannot be compared with it.
    """
    from pipeline.policy import load, presets

    if policy.name not in presets() or policy.name == STARTING_VALUES:
        return
    for change in changes(load(policy.name), policy):
        if change.direction in ("looser", "incomparable"):
            raise PolicyError(
                f"A policy is called {policy.name} as a preset is, and its {change.key} is {json.dumps(change.new)} where that "
                f"has {json.dumps(change.old)}: give it a name of its own."
            )


def only_tighter(parent: str, old: Policy, child: str, new: Policy) -> None:
    """Refuse a child that loosens what its parent says.

    Raises:
        PolicyError: a key of the child is looser than its parent's, or cannot be compared with it.
    """
    for change in changes(old, new):
        if change.direction in ("looser", "incomparable"):
            how = "cannot be compared with" if change.direction == "incomparable" else "is looser than"
            raise PolicyError(
                f"In policy {child}, {change.key} is {json.dumps(change.new)}, which {how} the {json.dumps(change.old)} of its "
                f"parent {parent}, and a child may only tighten: keep the parent's value, or extend {STARTING_VALUES} and "
                "stand for every value yourself."
            )
