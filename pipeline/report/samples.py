"""A few texts that the released model writes after neutral prompts, each checked before anybody sees it.

Whatever the policy's detector finds in a text is replaced by the name of its kind, and a text that then still repeats six
words in a row of any record is withheld. What is shown is computed from the released weights alone, so ε covers it; which
ones are withheld depends on the records too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.corpus import load_records
from pipeline.overlap import repeated
from pipeline.policy import Policy

if TYPE_CHECKING:
    from pipeline.train.loop import Trained

PROMPTS = ("Dear", "Thank you for", "The", "Please")
TOKENS = 32
SHARED = 6  # words in a row that no shown text has in common with a record


def withheld() -> dict[str, Any]:
    """What stands in the place of samples where the model is not released: nothing that it writes is shown."""
    return {"shown": False, "checked_by": None, "samples": []}


def draw(trained: Trained, policy: Policy, records: Path) -> dict[str, Any]:
    """Sample one text after each of `PROMPTS` and check it.

    Args:
        trained: the released adapter and its base.
        policy: its section `scrub` names the detector.
        records: records.jsonl of the corpus as it was read; where retention deleted it nothing is shown.

    Returns:
        `shown`, `checked_by` (the detector) and `samples`: `prompt`, `text` (None where it is withheld) and `why`.
    """
    from pipeline import models
    from pipeline.guard import Guard

    if not records.is_file() or not trained.adapter.is_dir():
        return withheld()
    model, tokenizer = models.with_adapter(trained.base, trained.adapter)
    seed = int(trained.adapter_digest[:8], 16)
    decoding = models.Decoding(method="sample", max_new_tokens=TOKENS, seed=seed)
    texts = [models.generate(model, tokenizer, prompt, decoding) for prompt in PROMPTS]
    guard = Guard(policy.scrub)
    shown = guard.check([prompt + text for prompt, text in zip(PROMPTS, texts, strict=True)])
    said = repeated(shown, (part.text for record in load_records(records) for part in record.parts), SHARED)
    rows = [
        {"prompt": prompt, "text": None if again else " ".join(text.split()), "why": _WHY if again else ""}
        for prompt, text, again in zip(PROMPTS, shown, said, strict=True)
    ]
    return {"shown": True, "checked_by": guard.name, "samples": rows}


_WHY = "it repeats words of a record"
