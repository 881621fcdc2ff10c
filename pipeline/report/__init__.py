"""The report: values of all stages in, `report.json` and one self-contained `report.html` out, and the model card.

content = build(policy, corpus, scrubbed, planted, trained, evidence, verdict, standing, facts)
page = write(content, folder)
text = card(content, base)
"""

from __future__ import annotations

from pipeline.report.build import SCHEMA, build
from pipeline.report.card import card, gate_table
from pipeline.report.context import keep
from pipeline.report.pdf import write_pdf
from pipeline.report.render import render, write
from pipeline.report.schema import schema_text

__all__ = ["SCHEMA", "build", "card", "gate_table", "keep", "render", "schema_text", "write", "write_pdf"]
