"""The JSON Schema of report.json, published as report.schema.json beside this file and by `hushtune report --schema`.

Within one version keys are only added, never renamed, retyped or removed. Each section below lists its keys in a short form:
`key:type`, with `?` where the value can be null; `[…]` is a list. What is null was not measured.
"""

from __future__ import annotations

import json
from typing import Any

SCHEMA = "hushtune-report/1"

_TYPES = {
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "sha": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "any": {},
}

_SHARED = {
    "figure": "figure:text title:text format:text value:num? low:num? high:num? ceiling:num? n:int? method:text? seconds:num? "
    "resolvable:bool valid:bool conditions:[condition]",
    "condition": "name:text holds:bool",
    "picture": "title:text alt:text cutoff:text~",
    "term": "term:text text:text",
    "limitation": "title:text text:text",
    "named": "name:text value:text",
    "link": "section:text title:text",
    "gate": "name:text title:text question:text figure:text format:text symbol:text n:int? "
    "passed:bool outcome:text value:num? low:num? high:num? "
    "ceiling:num? judge:text judged:text judged_text:text bound:num? limit:num rule:text axis:[num] why:text purpose:text "
    "owner:text remedy:text finding:text alt:text",
    "approval": "required:bool pending:bool text:text",
    "brief": "promised:text not_promised:text",
    "refusal": "reason:text count:int",
    "entity": "entity:text title:text count:int planted:int? found:int? recall:num? low:num? context_planted:int? "
    "context_found:int? context_recall:num? context_low:num?",
    "capture": "first:int second:int both:int estimate:num low:num high:num recall:num recall_low:num other:text?",
    "residual": "by:text? found:int records:int per_record:num? kinds:[kind]",
    "identity": "units:int unique:int unique_share:num sizes:[class] kinds:[remaining] picture:picture",
    "class": "size:text units:int",
    "remaining": "kind:text units:int",
    "review": "records:int right:int wrong:int missed:int precision:num? precision_low:num? recall:num? recall_low:num?",
    "kind": "entity:text title:text count:int",
    "base": "name:text parameters:int context:int licence:text digest:sha",
    "point": "steps:int pld:num prv:num",
    "cost": "text:text private:figure? control:figure?",
    "past": "number:int run:text at:text epsilon:num before:num composed:num this:bool",
    "summary": "n:int mean:num? most:num?",
    "exposures": "planted:[num] control:[num]",
    "rung": "copies:int bits:figure? p:figure? control_bits:figure? control_p:figure? allowed:figure?",
    "bound": "title:text figure:figure?",
    "metric": "metric:text title:text",
    "attack": "attack:text title:text metrics:[figure?]",
    "curve": "attack:text title:text points:[[num]] band:[[num]]",
    "leak": "attack:text title:text trained:figure? control:figure? excess:figure?",
    "played": "game:text hits:int cases:int high:num? control_hits:int control_cases:int",
    "leaked": "entity:text title:text games:[played]",
    "answers": "text:text rows:[answered] picture:picture",
    "answered": "title:text base:figure? tuned:figure? control:figure?",
    "samples": "text:text shown:bool checked_by:text? withheld:int samples:[sample]",
    "sample": "prompt:text text:text? why:text",
    "row": "ref:text what:text status:text evidence:[link] missing:[text] rest:text recall:num? low:num?",
    "counts": "covered:int partly:int not:int",
    "framework": "key:text title:text source:text sum:text counts:counts rows:[row]",
    "digest": "name:text digest:text",
    "stage": "stage:text seconds:num",
    "change": "title:text format:text before:any after:any",
    "changes": "finding:text previous:text? rows:[change]",
}

_SECTIONS = {
    "run": "name:text created:text policy:text policy_digest:sha policy_description:text data:text base_model:text "
    "hushtune:text",
    "verdict": "status:text label:text sentence:text next:text reasons:[text] waivers:[text] passed:int failed:int "
    "gates:[gate] approval:approval signature:text missing:[link]",
    "promise": "finding:text brief:brief unit:text adjacency:text epsilon:num epsilon_limit:num delta:num units:int "
    "units_times_delta:num group_epsilon:any odds_factor:num certainty_from_half:num strength:text terms:[term] "
    "not_promised:[limitation] public:[text]",
    "data": "finding:text note:text provenance:text? source:text shape:text records:int units:int has_units:bool "
    "records_per_unit:num? largest_unit:int characters:int characters_per_record:num? refused:[refusal] refused_total:int "
    "duplicates:int duplicate_share:num? train_records:int train_units:int held_out_records:int held_out_units:int "
    "canaries:int records_cut:int max_tokens:int protected_units:int fingerprint:sha",
    "scrubbing": "finding:text weak:text untested:text records:int changed:int changed_share:num? replaced:int "
    "detector:text operator:text "
    "operator_text:text minimum_score:num looked_for:[text] confidence:num overall:entity? entities:[entity] "
    "sampled_records:int? capture:capture? residual:residual? k_anonymity:identity? review:review? digest:sha picture:picture",
    "training": "finding:text mechanism:text how:text unit:text units:int sampling_rate:num expected_batch:int "
    "noise_multiplier:num clipping_norm:num noise_deviation:num steps:int planned_steps:int updates:int gradients:text "
    "delta:num epsilon:num epsilon_prv:num? accountants_gap:num? records:int tokens_per_second:num seconds:num "
    "learning_rate:num lora:any base:base adapter_digest:sha course:[point] cost:cost picture:picture",
    "budget": "finding:text note:text name:text epsilon_cap:num delta:num epsilon_spent:num epsilon_sum:num epsilon_left:num "
    "runs:int cohorts:int this_run:num past:[past] axis:[num] picture:picture",
    "canaries": "finding:text how:text count:int included:int share_of_units:num? space:int space_bits:num guesses:int "
    "manifest_digest:sha alpha:num cutoff_bits:num? above_cutoff:int? p:num? mean_p:num? planted:summary control:summary "
    "series:exposures ladder:[rung] ladder_how:text ladder_picture:picture picture:picture",
    "epsilon": "finding:text how:text outcome:text allowed:num spent:num lower_bound:num? reachable:num? figure:figure? "
    "rows:[bound] axis:[num] picture:picture",
    "membership": "finding:text how:text best:num? metrics:[metric] attacks:[attack] roc:[curve] picture:picture",
    "extraction": "finding:text how:text confidence:num attacks:[leak] kinds:[leaked] left:figure? risk:[figure]",
    "utility": "finding:text how:text base_perplexity:figure? perplexity:figure? base_accuracy:figure? accuracy:figure? "
    "perplexity_ratio:figure? public_perplexity:figure?~ public_accuracy:figure?~ public_ratio:figure?~ public:text?~ "
    "completions:answers?~ samples:samples picture:picture",
    "reproduce": "finding:text note:text command:text policy:text seed:int digests:[digest] versions:[named] hardware:[named] "
    "seconds:[stage] total_seconds:num? changes:changes",
    "coverage": "finding:text note:text counts:counts frameworks:[framework]",
}


def schema() -> dict[str, Any]:
    """The schema as JSON-able content (JSON Schema 2020-12)."""
    sections = {name: _object(text) for name, text in _SECTIONS.items()}
    properties = {
        "schema": {"const": SCHEMA},
        **sections,
        "figures": {"type": "array", "items": {"$ref": "#/$defs/figure"}},
        "evidence_text": _TYPES["text"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": "hushtune report",
        "description": "What a run of hushtune promised, measured and decided. A value that is null was not measured.",
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "$defs": {name: _object(text) for name, text in _SHARED.items()},
    }


def schema_text() -> str:
    """The published spelling."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _object(text: str) -> dict[str, Any]:
    """An object of its keys in the short form; a key that ends in ~ may be absent."""
    properties, required = {}, []
    for item in text.split():
        key, kind = item.split(":", 1)
        properties[key] = _type(kind.removesuffix("~"))
        if not kind.endswith("~"):
            required.append(key)
    return {"type": "object", "required": required, "properties": properties}


def _type(kind: str) -> dict[str, Any]:
    if kind.endswith("?"):
        return {"anyOf": [_type(kind[:-1]), {"type": "null"}]}
    if kind.startswith("["):
        return {"type": "array", "items": _type(kind[1:-1])}
    return _TYPES[kind] if kind in _TYPES else {"$ref": f"#/$defs/{kind}"}
