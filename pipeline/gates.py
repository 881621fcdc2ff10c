"""The verdict: every rule of the policy against the evidence, as a pure function.

A gate passes only on a figure that is there, finite, resolvable, valid in all its conditions, within the limit, and able to
lie beyond it; whatever is missing fails. A figure that the sample could not resolve, or that could not have lain beyond the
limit, is inconclusive: the policy says whether that stops a release. A signed waiver lets a run pass that failed a gate which
the policy lets be waived. `judge` reads nothing and writes nothing, so the same evidence under the same policy on the same
day gives the same verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING, Literal

from pipeline.folders import Value, digest

if TYPE_CHECKING:
    from pipeline.audit.figures import Evidence, Figure
    from pipeline.policy import Gate, Policy

Status = Literal["released", "rejected", "inconclusive", "awaiting_approval"]


class Waiver(Value):
    """A person's decision that a run may pass although it fails a gate: for one policy (its digest), for some days."""

    gate: str
    policy: str
    by: str
    why: str
    issued: date
    expires: date

    def holds(self, gate: str, policy: Policy, today: date) -> bool:
        """Whether it lifts this gate of this policy today; a policy says which of its gates can be lifted at all."""
        named = (self.gate, self.policy) == (gate, policy.digest) and policy.gates[gate].waivable
        return named and self.issued <= today <= self.expires


class GateResult(Value):
    """One rule, judged. `value` is the figure's, `bound` the number that was held against `limit`; None where it is missing.

    `why` is one sentence with the figure, what was judged and the limit, or what the evidence lacks. A gate that did not pass
    is `inconclusive` if its figure could not be resolved, not `measured` if there is no sound figure, and `tolerated` if it
    stops no release all the same: because it was waived, or because the policy releases what is inconclusive.
    """

    name: str
    figure: str
    passed: bool
    value: float | None
    bound: float | None
    limit: float
    why: str
    owner: str
    inconclusive: bool = False
    measured: bool = True
    tolerated: bool = False
    waiver: Waiver | None = None

    @property
    def stops(self) -> bool:
        """Whether this gate keeps the run from being released."""
        return not (self.passed or self.tolerated)


class Verdict(Value):
    """What becomes of the run. `reasons` are those that decided: waivers, then every gate that stops it, or all gates."""

    status: Status
    gates: tuple[GateResult, ...]
    reasons: tuple[str, ...]


def judge(policy: Policy, evidence: Evidence, waivers: Iterable[Waiver] = (), today: date | None = None) -> Verdict:
    """Hold the evidence against every gate of the policy, in the policy's order.

    Args:
        policy: the resolved policy: `gates` and `release`.
        evidence: the audit's figures by name.
        waivers: those whose signatures were checked; they count only with `today`.
        today: the day on which waivers must hold.

    Returns:
        `rejected` if a gate fails; else `inconclusive` if one cannot be resolved and the policy does not release that; else
        `awaiting_approval` if the policy asks for a person's approval, else `released`.
    """
    gates = {name: _resolved(gate, policy) for name, gate in policy.gates.items()}
    at_hand = list(waivers) if today is not None else []
    results = []
    for name, gate in gates.items():
        result = _result(name, gate, evidence.figures.get(gate.figure))
        holding = [one for one in at_hand if today is not None and one.holds(name, policy, today)]
        results.append(_tolerated(result, policy, holding))
    stopping = [result for result in results if result.stops]
    waived = [_waived(result) for result in results if result.waiver]
    if stopping:
        rules = [(result, gates[result.name], evidence.figures.get(result.figure)) for result in stopping]
        failed = any(not result.inconclusive for result in stopping)
        reasons = (*waived, *(_rejection(*rule) for rule in rules))
        return Verdict(status="rejected" if failed else "inconclusive", gates=tuple(results), reasons=reasons)
    reasons = [*waived, *(_passed(result) for result in results if not result.waiver)]
    if policy.release.approval == "required":
        how = "passed" if all(result.passed for result in results) else "passed or are tolerated"
        reasons.append(f"All {len(results)} gates {how}, and policy {policy.name} asks for a person's approval.")
        return Verdict(status="awaiting_approval", gates=tuple(results), reasons=tuple(reasons))
    return Verdict(status="released", gates=tuple(results), reasons=tuple(reasons))


def seal(evidence: Evidence) -> str:
    """SHA-256 of the figures that are judged, taken anew: an evidence that was written over shows in the ledger."""
    figures = {name: figure.model_dump(mode="json", exclude={"seconds"}) for name, figure in evidence.figures.items()}
    return digest({"figures": figures, "series": evidence.series})


def _tolerated(result: GateResult, policy: Policy, waivers: list[Waiver]) -> GateResult:
    if result.passed:
        return result
    if result.inconclusive:
        return result.model_copy(update={"tolerated": policy.release.inconclusive == "release"})
    if waivers and result.measured:  # what is not known cannot be waived
        return result.model_copy(update={"tolerated": True, "waiver": max(waivers, key=lambda one: one.expires)})
    return result


def _waived(result: GateResult) -> str:
    waiver = result.waiver
    assert waiver is not None
    return (
        f"Gate {result.name} failed and was waived by {waiver.by} on {waiver.issued}, until {waiver.expires}: {waiver.why} "
        f"({result.why})"
    )


def _passed(result: GateResult) -> str:
    if result.tolerated:
        return f"Gate {result.name} is inconclusive, which this policy releases: {result.why}"
    return f"Gate {result.name} passed: {result.why}"


def _resolved(gate: Gate, policy: Policy) -> Gate:
    """The gate with a number for its limit."""
    return gate.model_copy(update={"at_most": policy.privacy.epsilon}) if gate.at_most == "privacy.epsilon" else gate


def _result(name: str, gate: Gate, figure: Figure | None) -> GateResult:
    lack, judged = _lack(gate, figure), _judged(gate, figure)
    passed = not lack and judged is not None and _within(gate, judged)
    why = lack if lack or figure is None or judged is None else _comparison(gate, figure, judged, passed)
    return GateResult(
        name=name,
        figure=gate.figure,
        passed=passed,
        value=_finite(figure.value) if figure else None,
        bound=judged,
        limit=_limit(gate),
        why=why,
        owner=gate.owner,
        inconclusive=not passed and figure is not None and _is_unresolved(gate, figure),
        measured=not lack and judged is not None,
    )


def _lack(gate: Gate, figure: Figure | None) -> str:
    """What keeps the figure from being judged, as a sentence; empty if nothing does."""
    limit = f"and the limit is {_side(gate)} {number(_limit(gate))}"
    if figure is None:
        return f"The evidence has no figure {gate.figure}, {limit}."
    invalid = [condition.replace("_", " ") for condition, holds in figure.conditions.items() if not holds]
    if invalid:
        return f"{gate.figure} is not valid ({', '.join(invalid)} does not hold), {limit}."
    if not figure.resolvable:
        return f"{gate.figure} cannot be resolved with n = {figure.n:,}, {limit}."
    if not math.isfinite(figure.value):
        return f"{gate.figure} is {figure.value}, which is no finite number, {limit}."
    end = _end(gate, figure)
    if end is not None and _is_toothless(gate, figure):
        reach = f"could at most have been {number(end)}" if gate.at_most is not None else f"is never below {number(end)}"
        return f"{gate.figure} {reach}, so this gate cannot fail, {limit}."
    bound = {"value": figure.value, "low": figure.low, "high": figure.high}[gate.judge]
    if bound is None:
        return f"{gate.figure} is {number(figure.value)} and has no {_bound_name(gate)}, which this gate judges, {limit}."
    if not math.isfinite(bound):
        return f"{gate.figure} is {number(figure.value)}, its {_bound_name(gate)} {bound} is no finite number, {limit}."
    return ""


def _is_unresolved(gate: Gate, figure: Figure) -> bool:
    """Whether the figure is sound as far as it goes, and the sample too small to say more."""
    sound = all(figure.conditions.values()) and math.isfinite(figure.value)
    return sound and (not figure.resolvable or _is_toothless(gate, figure))


def _is_toothless(gate: Gate, figure: Figure | None) -> bool:
    """Whether no outcome of the measurement could have lain beyond the limit (an end that is no number counts)."""
    end = _end(gate, figure)
    if end is None:
        return False
    return not (end > _limit(gate) if gate.at_most is not None else end < _limit(gate))


def _end(gate: Gate, figure: Figure | None) -> float | None:
    """The farthest that the figure could have lain in the direction in which this gate fails; None where there is no end."""
    if figure is None:
        return None
    return figure.ceiling if gate.at_most is not None else figure.floor


def _judged(gate: Gate, figure: Figure | None) -> float | None:
    """The finite number that the gate holds against its limit, if there is one."""
    if figure is None:
        return None
    return _finite({"value": figure.value, "low": figure.low, "high": figure.high}[gate.judge])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _within(gate: Gate, judged: float) -> bool:
    return judged <= _limit(gate) if gate.at_most is not None else judged >= _limit(gate)


def _comparison(gate: Gate, figure: Figure, judged: float, passed: bool) -> str:
    spelled, limit = _apart(judged, _limit(gate))
    if gate.judge == "value":
        measured = f"{gate.figure} is {spelled}"
    else:
        measured = f"{gate.figure} is {number(figure.value)}, its {_bound_name(gate)} {spelled}"
    measured += f" (n = {figure.n:,})" if figure.n else ""
    return f"{measured}, {'within' if passed else 'beyond'} the limit of {_side(gate)} {limit}."


def _rejection(result: GateResult, gate: Gate, figure: Figure | None) -> str:
    remedy = _remedy(gate.figure)
    if _lack(gate, figure):
        remedy = (_TEETH if gate.at_most is not None else _SHARPER) if _is_toothless(gate, figure) else _EVIDENCE
    elif gate.judge != "value" and figure is not None and _within(gate, figure.value):
        remedy = f"{_NARROWER} {remedy}"
    how = "is inconclusive" if result.inconclusive else "failed"
    return f"Gate {result.name} {how}: {result.why} {gate.why} {remedy} The limit is owned by: {gate.owner}."


def _limit(gate: Gate) -> float:
    limit = gate.at_most if gate.at_most is not None else gate.at_least
    assert isinstance(limit, float)  # the policy checks that there is exactly one, and `_resolved` makes it a number
    return limit


def _side(gate: Gate) -> str:
    return "at most" if gate.at_most is not None else "at least"


def _bound_name(gate: Gate) -> str:
    return {"low": "lower bound", "high": "upper bound"}.get(gate.judge, "value")


_EVIDENCE = "What cannot be shown is not released: try more records or a larger audit section in the policy, and run again."
_NARROWER = (
    "The figure itself is within the limit and only its bound is not, which a larger sample narrows (audit.extraction_records, "
    "audit.membership_records, data.held_out; scrub.probes for a recall)."
)
_TEETH = "Try more canaries.guesses (and canaries.count), or a lower limit: an attack counts only if it could have succeeded."
_SHARPER = (
    "Try fewer audit.exposure_canaries, a larger canaries.alphabet or a higher limit: an attack counts only if it could have "
    "succeeded."
)
_SPEND_LESS = "Try a lower privacy.epsilon, fewer train.steps or the records of more people."
_REMEDIES = {
    "privacy": _SPEND_LESS,
    "epsilon": "Do not release: look for a fault in sampling, clipping or noise before anything is run again.",
    "exposure": f"{_SPEND_LESS} Look for values that many records repeat.",
    "membership": _SPEND_LESS,
    "extraction": f"{_SPEND_LESS} Look for values that many records repeat.",
    "scrub": "Try a lower scrub.minimum_score or more scrub.entities; the report lists what is missed by type.",
    "utility": "Try more records, a larger train.expected_batch, another train.learning_rate or a better base model.",
}


def _remedy(figure: str) -> str:
    return _REMEDIES.get(figure.split(".")[0], "Try more records, or settings that spend less privacy.")


def number(value: float, digits: int = 4) -> str:
    """A figure as people write it: `digits` significant digits, thousands set apart.

    >>> number(0.5), number(2.34567), number(1234567.0), number(0.000012345), number(8)
    ('0.5', '2.346', '1,234,567', '1.234e-05', '8')
    """
    if value != 0 and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits}g}"
    whole = len(f"{abs(value):.0f}") if abs(value) >= 1 else 0
    decimals = max(0, digits - whole) if whole else digits - 1 - math.floor(math.log10(abs(value) or 1))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _apart(judged: float, limit: float) -> tuple[str, str]:
    """Both numbers, with as many digits as it takes to tell them apart."""
    for digits in range(4, 17):
        spelled = number(judged, digits), number(limit, digits)
        if judged == limit or spelled[0] != spelled[1]:
            return spelled
    return repr(judged), repr(limit)
