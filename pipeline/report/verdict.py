"""The verdict section: one sentence, and for each gate the question, the figure, what was judged and what to try."""

from __future__ import annotations

from typing import Any

from pipeline.report.coverage import holds
from pipeline.report.formats import join, plain, plural, share, show
from pipeline.report.frameworks import FACTS
from pipeline.report.names import STATUS, name, symbol


def verdict(stages: dict[str, Any]) -> dict[str, Any]:
    """The verdict as the first screen shows it; gates keep the policy's order."""
    content = stages["verdict"]
    gates = [_gate(gate, stages) for gate in content["gates"]]
    failed = [gate for gate in gates if gate["outcome"] in ("failed", "inconclusive")]
    status = content["status"]
    return {
        "status": status,
        "label": _label(status, gates),
        "sentence": _sentence(status, gates, failed),
        "next": _next(status, failed),
        "reasons": content["reasons"],
        "waivers": [_waiver(gate) for gate in content["gates"] if gate.get("waiver")],
        "passed": sum(gate["passed"] for gate in gates),
        "failed": len(failed),
        "gates": gates,
        "approval": _approval(stages["policy"]["release"], status),
        "signature": _SIGNED if status in ("released", "awaiting_approval") else "Nothing was released, so nothing is signed.",
    }


_SIGNED = (
    "A release carries two signatures, model.sig and attestation.json, over every file of it, this report among them. "
    "hushtune verify checks them without a network."
)


def _approval(rules: dict[str, Any], status: str) -> dict[str, Any]:
    """Who must say yes. The name of who did stands in the release's manifest, which is made after this report."""
    required = rules["approval"] == "required"
    text = "The policy asks for no person's approval: the gates alone decide."
    if required:
        other = ", by another than who submitted the run" if rules["four_eyes"] else ""
        text = (
            f"The policy asks for a person's approval within {plural(rules['approval_days'], 'day')}{other}. Who gave it, and "
            "when, stands in the release's manifest.json and in the ledger."
        )
    return {"required": required, "pending": status == "awaiting_approval", "text": text}


def missing(content: dict[str, Any]) -> list[dict[str, str]]:
    """What a reader could expect and this run did not measure, with its section: said on the first screen."""
    return [{"section": FACTS[fact].section, "title": FACTS[fact].title} for fact in _EXPECTED if not holds(content, fact)]


_EXPECTED = (
    "purpose", "recall", "context", "capture", "residual", "k_anonymity", "review", "cost", "exposure", "ladder", "bound",
    "control", "membership", "extraction", "values", "risk", "utility", "samples",
)  # fmt: skip


def _gate(gate: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    rule = stages["policy"]["gates"].get(gate["name"], {})
    figure = stages["evidence"]["figures"].get(gate["figure"], {})
    known = name(gate["figure"])
    at_least = rule.get("at_least") is not None
    low, high, value = figure.get("low"), figure.get("high"), gate["value"]
    if gate["figure"].endswith("_excess") and low is not None and low < 0:
        low = None  # a difference that may be below zero: only how far above it may lie is a leak
    usable = value is not None and figure.get("resolvable", True) and all(figure.get("conditions", {}).values())
    weak = usable and gate.get("inconclusive", False)  # its number keeps the limit because it could do nothing else
    usable = usable and not weak
    rule_side = "at_least" if at_least else "at_most"
    content = {
        "name": gate["name"],
        "title": known.title,
        "question": known.question or rule.get("why", ""),
        "figure": gate["figure"],
        "format": known.format,
        "symbol": symbol(gate["figure"]),
        "n": figure.get("n"),
        "passed": gate["passed"],
        "outcome": _outcome(gate),
        "value": value,
        "low": low,
        "high": high,
        "ceiling": figure.get("ceiling"),
        "judge": rule.get("judge", "value"),
        "judged": _judged(rule.get("judge", "value")),
        "judged_text": f"Judged by its {_judged(rule.get('judge', 'value'))}.",
        "bound": gate["bound"],
        "limit": gate["limit"],
        "rule": rule_side,
        "axis": _axis(gate["figure"], [value, low, high, gate["bound"], gate["limit"]]),
        "why": gate["why"],
        "purpose": rule.get("why", ""),
        "owner": gate["owner"],
        "remedy": known.remedy if usable else _NO_POWER[rule_side] if weak else _ABSENT,
    }
    nearest = {**content, "format": "number"} if known.format in ("upper", "lower") else content
    close = (
        gate["bound"] is not None and not gate["passed"] and _finding(nearest) == _finding({**nearest, "bound": gate["limit"]})
    )
    exact = close or not usable  # rounding would hide the difference, or there is nothing to round
    finding = f"{known.title}: {gate['why']}" if exact else f"{_finding(content)}."
    return {**content, "finding": finding, "alt": _alt(content)}


def _label(status: str, gates: list[dict[str, Any]]) -> str:
    """The verdict's name, never the plain one of a release that a gate did not pass."""
    outcomes = {gate["outcome"] for gate in gates if not gate["passed"]}
    known = STATUS.get(status, status)
    if status not in ("released", "awaiting_approval") or not outcomes:
        return known
    return f"{known} {'under a waiver' if 'waived' in outcomes else 'without a conclusion'}"


def _outcome(gate: dict[str, Any]) -> str:
    if gate["passed"]:
        return "passed"
    if gate.get("waiver"):
        return "waived"
    return ("inconclusive, tolerated" if gate.get("tolerated") else "inconclusive") if gate.get("inconclusive") else "failed"


def _waiver(gate: dict[str, Any]) -> str:
    waiver = gate["waiver"]
    return (
        f"Waived by {waiver['by']} on {waiver['issued']}, until {waiver['expires']}: the gate {gate['name']}, which failed. "
        f"Reason: {waiver['why']}"
    )


def _alt(gate: dict[str, Any]) -> str:
    ends = [show(gate[key], gate["format"]) for key in ("low", "high") if gate[key] is not None]
    interval = f" Interval: {' to '.join(ends)}." if len(ends) == 2 else ""
    ceiling = f" Largest reachable: {show(gate['ceiling'], gate['format'])}." if gate["ceiling"] is not None else ""
    return f"{gate['outcome'].capitalize()}. {_finding(gate)}.{interval}{ceiling}"


def _judged(judge: str) -> str:
    return {"low": "lower bound", "high": "upper bound"}.get(judge, "value")


def _axis(figure: str, values: list[float | None]) -> list[float]:
    """Ends of the scale on which a gate is drawn: the natural range of the figure where it has one."""
    present = [value for value in values if value is not None]
    if figure.endswith(".auc"):
        return [min([0.4, *present]), max([0.7, *(value + 0.02 for value in present)])]
    if figure.startswith("scrub.") or figure.endswith("_p"):
        return [0.0, 1.0]
    return [0.0, 1.15 * max([*present, 1e-9])]


def _sentence(status: str, gates: list[dict[str, Any]], failed: list[dict[str, Any]]) -> str:
    total = plural(len(gates), "gate")
    if status == "rejected" and failed:
        broken = [_lower(gate["title"]) for gate in failed if gate["outcome"] == "failed"]
        doubtful = [_lower(gate["title"]) for gate in failed if gate["outcome"] != "failed"]
        more = f"; {len(doubtful)} could not be resolved: {join(doubtful)}" if doubtful else ""
        return f"{len(broken)} of {total} failed: {join(broken)}{more}."
    if status == "inconclusive":
        doubtful = join([_lower(gate["title"]) for gate in failed])
        return f"{len(failed)} of {total} could not be resolved, so nothing was shown: {doubtful}."
    tolerated = [gate for gate in gates if not gate["passed"]]
    if tolerated and not failed:
        outcomes = join([f"{_lower(gate['title'])} ({gate['outcome']})" for gate in tolerated])
        asks = " The policy asks for a person's approval." if status == "awaiting_approval" else ""
        return f"{len(gates) - len(tolerated)} of {total} passed. Not passed, and let through: {outcomes}.{asks}"
    if status == "awaiting_approval":
        return f"All {total} passed. The policy asks for a person's approval before the model is released."
    if status == "released":
        attacked = any(gate["figure"] == "epsilon.lower_bound" for gate in gates)
        found = "no attack tried here contradicts the promise, and " if attacked else ""
        return f"All {total} passed: {found}every figure that was judged keeps the limit that the policy sets."
    return f"Of {total}, {len(gates) - len(failed)} passed."


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def _finding(gate: dict[str, Any]) -> str:
    side = "at least" if gate["rule"] == "at_least" else "at most"
    limit = share(gate["limit"]) if gate["format"] == "percent" else plain(gate["limit"])
    bound = show(gate["bound"], gate["format"])
    judged = f" ({gate['judged']})" if gate["judge"] != "value" and gate["bound"] is not None else ""
    return f"{gate['title']}: {bound}{judged}, where the policy asks for {side} {limit}"


def _next(status: str, failed: list[dict[str, Any]]) -> str:
    if status in ("rejected", "inconclusive"):
        return (
            "The weights are not released. The privacy that the run spent stays spent: it is charged to the lifetime budget, "
            "and a new run spends more."
        )
    if status == "awaiting_approval":
        return (
            "Read what is promised and what is not, then approve with the command hushtune approve, or leave it. A release "
            "made of it keeps this page as it was read: by whom it was approved, and when, stands in its manifest.json."
        )
    return "This report is evidence for a human decision. It does not replace the decision."


_ABSENT = (
    "Missing evidence fails: the figure was not measured, cannot be resolved with this many records, or rests on a condition "
    "that does not hold. Raise the audit's sample in the policy, or bring more records, and run again."
)
_NO_POWER = {
    "at_most": "This test could not have failed, so that it did not shows nothing. Raise canaries.count and canaries.guesses, "
    "or lower the limit, and run again.",
    "at_least": "This test could not have failed, so that it did not shows nothing. Lower audit.exposure_canaries, raise "
    "canaries.alphabet or the limit, and run again.",
}
