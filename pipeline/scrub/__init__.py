"""Find personal data, put something harmless in its place, and measure how much is found.

    scrubbed = scrub(corpus, policy, run / "scrubbed", probes=run / "probes.jsonl")

Importing this package loads no model; the first text that is looked at does.
"""

from pipeline.scrub.detect import Detector, Span, load
from pipeline.scrub.probes import write_probes
from pipeline.scrub.recall import Recall, RecallReport, measure
from pipeline.scrub.stage import Scrubbed, export, key_for, scrub

__all__ = [
    "Detector",
    "Recall",
    "RecallReport",
    "Scrubbed",
    "Span",
    "export",
    "key_for",
    "load",
    "measure",
    "scrub",
    "write_probes",
]
