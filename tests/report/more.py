"""What a run with everything measured has beyond the basic sample: two detectors, extraction, a control, context."""

from __future__ import annotations

from typing import Any

COURSE = [{"steps": steps, "pld": 2.2 * steps**0.35, "prv": 2.21 * steps**0.35} for steps in (5, 10, 15, 20, 25, 30, 35, 40)]
PAST = [
    {"run": "support-messages-2025-09-25", "at": "2025-09-25T18:40:00.000+00:00", "epsilon": 7.98, "composed": 8.31},
    {"run": "support-messages-2025-10-25", "at": "2025-10-25T18:40:00.000+00:00", "epsilon": 7.99, "composed": 10.02},
    {"run": "support-messages-2025-11-23", "at": "2025-11-23T18:40:00.000+00:00", "epsilon": 7.98, "composed": 11.42},
]
SAMPLES = {
    "shown": True,
    "checked_by": "default",
    "samples": [
        {"prompt": "Dear", "text": "Dear <PERSON>, the parcel is on its way.", "why": ""},
        {"prompt": "Please", "text": None, "why": "it repeats words of a record"},
    ],
}
REVIEW = {
    "records": 40, "right": 212, "wrong": 9, "missed": 7, "precision": 0.9593, "precision_low": 0.9306, "recall": 0.968,
    "recall_low": 0.9408,
}  # fmt: skip
CONTEXT: dict[str, Any] = {"course": COURSE, "past": PAST, "previous": None, "samples": SAMPLES, "review": REVIEW}

SAMPLED = {
    "records": 200,
    "context": [
        {"entity": "PERSON", "planted": 60, "found": 57, "low": 0.876},
        {"entity": "RECORD_NUMBER", "planted": 24, "found": 18, "low": 0.563},
        {"entity": "ALL", "planted": 84, "found": 75, "low": 0.821},
    ],
    "capture": {
        "first": 1355, "second": 1397, "both": 1300, "estimate": 1456.1, "low": 1452.0, "high": 1470.2,
        "recall": 0.9306, "recall_low": 0.9216,
    },
    "other": "rampart 1.4.0",
}  # fmt: skip
SCRUBBED = {
    "sampled": SAMPLED,
    "rescanned_by": "rampart 1.4.0",
    "rescanned": 2000,
    "quasi": {
        "units": 861,
        "unique": 204,
        "sizes": {"1": 204, "2": 96, "3-5": 121, "6-10": 88, ">10": 352},
        "kinds": {"age": 40, "gender": 610, "occupation": 122},
    },
    "residual": {"PERSON": 299, "STREET_ADDRESS": 226, "LOCATION": 122},
}


def figures(figure: Any) -> dict[str, Any]:
    """Figures on extraction, copies and the control, by name; `figure` makes one."""
    exact = "exact rank among 110,592 candidates"
    rows: list[tuple[Any, ...]] = [
        ("control.epsilon.lower_bound", 2.61, 2.61, None, 256, "the same on a twin without clipping or noise"),
        ("control.epsilon.fdp_lower_bound", 3.02, 3.02, None, 256, "the same on a twin without clipping or noise"),
        ("epsilon.fdp_lower_bound", 0.4, 0.4, None, 256, "assumes a Gaussian trade-off curve"),
        ("exposure.copies_0.mean_bits", 1.3, 0.8, 1.9, 18, exact),
        ("exposure.first", 0.0, 0.0, 0.08, 36, "share of personal secrets that stand first"),
        ("residual.risk", 0.0, None, 0.014, 36, "share missed times share given first"),
        ("games.values_left_in_training", 253.0, None, None, 9000, "distinct removed values"),
    ]
    for copies, bits, control, allowed in ((1, 1.6, 2.4, 11.5), (4, 1.5, 7.9, 48.4), (16, 2.9, 15.4, 225.0)):
        rows += [
            (f"exposure.copies_{copies}.mean_bits", bits, bits - 0.7, bits + 0.9, 6, exact),
            (f"exposure.copies_{copies}.mean_p", 0.2, None, None, 6, "Gamma(m, 1)"),
            (f"exposure.copies_{copies}.dp_bits", allowed, None, None, copies, "ε of the copies over ln 2"),
            (f"control.exposure.copies_{copies}.mean_bits", control, control - 0.5, control + 0.5, 6, exact),
            (f"control.exposure.copies_{copies}.mean_p", 1e-9, None, None, 6, "Gamma(m, 1)"),
        ]
    for name in ("extraction.greedy", "extraction.discoverable", "extraction.either", "games.sampling",
                 "games.reconstruction", "games.inference"):  # fmt: skip
        rows += [
            (name, 0.002, 0.0001, 0.0094, 500, "1 of 500 trained on"),
            (f"{name}_control", 0.002, 0.0001, 0.0094, 500, "1 of 500 never trained on"),
            (f"{name}_excess", 0.0, -0.0077, 0.0077, 1000, "trained on minus never trained on"),
        ]
    made = {row[0]: figure(*row) for row in rows}
    for name, figures in made.items():
        if name.endswith("mean_bits"):
            figures["ceiling"] = 16.75
        if name.endswith("lower_bound"):
            figures["ceiling"] = 3.746
    return made


SERIES: dict[str, Any] = {
    "games.sampling.PERSON": [2.0, 3144.0, 0.0, 320.0],
    "games.reconstruction.PERSON": [0.0, 26.0, 0.0, 30.0],
    "games.inference.PERSON": [1.0, 26.0, 2.0, 30.0],
    "games.sampling.URL": [0.0, 217.0, 0.0, 20.0],
}
