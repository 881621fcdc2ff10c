"""The sections on training and on the lifetime budget: the mechanism and its accounting, and what the data has spent by now."""

from __future__ import annotations

from typing import Any

from pipeline.report.figures import figure, usable
from pipeline.report.formats import count, lower, number, plain, plural, upper

Stages = dict[str, Any]
_SHOWN = 12  # runs of a budget's past


def training(stages: Stages) -> dict[str, Any]:
    """The mechanism and its accounting, and what was trained.

    The counts of empty draws and lost gradients depend on who was drawn; they stay in the run folder's privacy.json.
    """
    trained, policy = stages["trained"], stages["policy"]
    mechanism = trained["mechanism"]
    rate = mechanism["expected_batch"] / mechanism["units"]
    gap = abs(trained["epsilon"] - trained["epsilon_prv"]) if trained["epsilon_prv"] is not None else None
    second = f"; a second accountant finds {upper(trained['epsilon_prv'])}" if gap is not None else ""
    return {
        "finding": f"{_steps(trained)} ε = {upper(trained['epsilon'])} of the "
        f"{plain(policy['privacy']['epsilon'])} that the policy allows{second}.",
        "mechanism": "DP-SGD: Poisson-subsampled Gaussian mechanism on LoRA weights",
        "how": f"In each step every {mechanism['unit']} is drawn with its own coin of probability q. Each one's gradient is "
        "clipped to length C, the clipped gradients are added up, and Gaussian noise of standard deviation σC is added to the "
        "sum. A step in which nobody is drawn is noise alone, and counts.",
        "unit": mechanism["unit"],
        "units": mechanism["units"],
        "sampling_rate": rate,
        "expected_batch": mechanism["expected_batch"],
        "noise_multiplier": mechanism["noise_multiplier"],
        "clipping_norm": mechanism["clipping_norm"],
        "noise_deviation": mechanism["noise_multiplier"] * mechanism["clipping_norm"],
        "steps": trained["steps"],
        "planned_steps": mechanism["steps"],
        "updates": trained["updates"],
        "gradients": trained["gradients"],
        "delta": trained["delta"],
        "epsilon": trained["epsilon"],
        "epsilon_prv": trained["epsilon_prv"],
        "accountants_gap": gap,
        "records": trained["records"],
        "tokens_per_second": trained["tokens_per_second"],
        "seconds": trained["seconds"],
        "learning_rate": policy["train"]["learning_rate"],
        "lora": policy["train"]["lora"],
        "base": {key: trained["base"][key] for key in ("name", "parameters", "context", "licence", "digest")},
        "adapter_digest": trained["adapter_digest"],
        "course": stages["facts"].get("course") or [],
        "cost": _cost(stages),
        "picture": {"title": "ε over the steps, by two accountants", "alt": _course_alt(stages)},
    }


def _course_alt(stages: Stages) -> str:
    course = stages["facts"].get("course") or []
    if not course:
        return ""
    last = course[-1]
    return (
        f"Two curves of ε that rise with the steps and lie on each other: after {plural(int(last['steps']), 'step')}, "
        f"{upper(last['pld'])} by privacy loss distributions and {upper(last['prv'])} by the PRV accountant."
    )


def _cost(stages: Stages) -> dict[str, Any]:
    """What the noise costs: perplexity beside that of the same training without clipping and noise, where one was done."""
    private, without = (figure(stages, f"{prefix}utility.perplexity") for prefix in ("", "control."))
    measured = private is not None and without is not None and usable(private) and usable(without)
    text = "What the noise costs was not measured: no model was trained on the same records without clipping and noise."
    if measured and private is not None and without is not None:
        text = (
            f"Perplexity on held-out records is {number(private['value'])} with privacy and {number(without['value'])} for the "
            "control without clipping and noise, which exists in memory only."
        )
    return {"text": text, "private": private, "control": without}


def _steps(trained: dict[str, Any]) -> str:
    taken, charged = trained["noisy_steps"], plural(trained["steps"], "noisy step")
    if taken < trained["steps"]:
        return f"Training stopped on public data after {count(taken)} steps; all {charged} planned are charged:"
    return f"{charged} spent"


def budget(stages: Stages) -> dict[str, Any]:
    """The lifetime budget after this run was charged."""
    standing = stages["standing"]
    cap, spent, runs = standing["epsilon_cap"], standing["epsilon_spent"], standing["runs"]
    left, past = standing["epsilon_left"], _past(stages)
    unit = stages["trained"]["mechanism"]["unit"]
    return {
        "finding": f"After {plural(runs, 'run')}, {upper(spent)} of the lifetime ε of {plain(cap)} is spent; "
        f"{lower(left)} is left.",
        "note": f"The budget belongs to the {_WHOSE.get(unit, unit)} of the data, not to a run, and stands where the most "
        "charged of them do. "
        "Runs are composed as mechanisms, which gives less than the plain sum of their ε; that holds for mechanisms whose "
        "parameters do not depend on earlier results. Nothing "
        "is refunded: a rejected or crashed run has spent too.",
        "name": standing["budget"],
        "epsilon_cap": cap,
        "delta": standing["delta"],
        "epsilon_spent": spent,
        "epsilon_sum": standing["epsilon_sum"],
        "epsilon_left": left,
        "runs": runs,
        "cohorts": standing.get("cohorts", 1),
        "this_run": stages["trained"]["epsilon"],
        "past": past,
        "axis": [0.0, max([cap, spent, *(row["composed"] for row in past)]) * 1.05],
        "picture": {"title": "Lifetime ε, run by run", "alt": _past_alt(past, cap, spent)},
    }


_WHOSE = {"record": "records", "person": "people"}


def _past(stages: Stages) -> list[dict[str, Any]]:
    """The runs of the budget with where it stood before and after each; the newest ones where they are many."""
    rows, before = [], 0.0
    for place, run in enumerate(stages["facts"].get("past") or [], 1):
        rows.append(
            {"number": place, "run": run["run"], "at": run["at"][:10], "epsilon": run["epsilon"], "before": before,
             "composed": run["composed"], "this": run["run"] == stages["facts"].get("run")}
        )  # fmt: skip
        before = run["composed"]
    return rows[-_SHOWN:]


def _past_alt(past: list[dict[str, Any]], cap: float, spent: float) -> str:
    runs = "; ".join(f"after run {row['number']}, {upper(row['composed'])}" for row in past)
    return (
        f"Columns, one a run, that stack what each added to the lifetime ε, under a line at the cap of {plain(cap)}: {runs}."
        if past
        else f"Bar from zero to the cap of ε {plain(cap)}, filled to {upper(spent)}."
    )
