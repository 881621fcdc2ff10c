"""Answers to held-out prompts beside the records' own completions: exact match, ROUGE-L and next-token accuracy.

Answers are decoded greedily, so that they depend on the model alone. ROUGE-L is the F-measure of the longest common subsequence
of words (Lin 2004), by the `rouge-score` package, without stemming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import models
from pipeline.audit import resample
from pipeline.audit.figures import Figure
from pipeline.audit.membership import clopper_pearson
from pipeline.audit.resample import bootstrap, interval
from pipeline.audit.utility import FEWEST
from pipeline.train.examples import IGNORED

if TYPE_CHECKING:
    from pipeline.audit.scoring import Scores
    from pipeline.corpus import Record
    from pipeline.train.examples import Example

_BATCH = 16


class Asked(NamedTuple):
    """A held-out record with a prompt: its place among the held-out ones, unit, prompt as it is trained on, completion."""

    row: int
    unit: str
    prompt: tuple[int, ...]
    completion: str


def asked(records: Sequence[Record], examples: Sequence[Example], most: int) -> list[Asked]:
    """The first `most` records of a prompt and a completion of which training would see both."""
    found = []
    for row, (record, example) in enumerate(zip(records, examples, strict=True)):
        learned = next((at for at, label in enumerate(example.labels) if label != IGNORED), 0)
        if [part.role for part in record.parts] == ["prompt", "completion"] and learned:
            found.append(Asked(row, record.unit, example.input_ids[:learned], record.parts[1].text))
    return found[:most]


def answers(
    model: Any, tokenizer: Any, some: Sequence[Asked], tokens: int, *, tick: Callable[[int], None] = lambda _: None
) -> list[str]:
    """The greedy continuation of each prompt by at most `tokens` tokens.

    A prompt that leaves less room than that in the model's context loses its beginning. `tick` is told tokens as they are made.
    """
    context = getattr(model.config, "max_position_embeddings", None) or model.config.n_positions
    room = context - min(tokens, context // 2)
    decoding = models.Decoding(max_new_tokens=context - room)
    made = []
    for start in range(0, len(some), _BATCH):
        part = some[start : start + _BATCH]
        rows = [one.prompt if len(one.prompt) <= room else (one.prompt[0], *one.prompt[-(room - 1) :]) for one in part]
        made += models.continue_all(model, tokenizer, rows, decoding)
        tick(tokens * len(part))
    return made


def measure(
    prefix: str,
    some: Sequence[Asked],
    texts: Sequence[str],
    scores: Scores,
    *,
    tokens: int,
    alpha: float,
    rng: np.random.Generator,
) -> list[Figure]:
    """Exact match, ROUGE-L and next-token accuracy of one model, with percentile bootstraps by unit.

    Args:
        prefix: what the figures' names begin with.
        some: the records that were asked.
        texts: the answers to them.
        scores: of the same records under the same model; a prompt's tokens are not among them.
        tokens: most that an answer could have.
        alpha: error probability of the two-sided intervals.
        rng: source of the resamples.

    Returns:
        Three figures in [0, 1]. Where every record or none is matched, and drawing again could show nothing else, the interval
        of exact match is Clopper and Pearson's for as many cases as there are units.
    """
    exact = [exact_match(one.completion, text) for one, text in zip(some, texts, strict=True)]
    rouge = rouge_l([one.completion for one in some], texts)
    columns = np.stack([np.ones(len(some)), exact, rouge, scores.tokens, scores.hits], axis=1).astype(float)
    groups = np.array([one.unit for one in some])

    def three(weights: np.ndarray) -> np.ndarray:
        count, matched, common, scored, hits = (weights @ columns).T
        return np.stack([matched / count, common / count, hits / scored], axis=1)

    values, samples = three(np.ones((1, len(some))))[0], bootstrap(three, [groups], rng)
    units = resample.fewest(groups)
    figures = []
    for column, (name, what) in enumerate(_FIGURES.items()):
        low, high = interval(samples[:, column], alpha, units)
        if name == "exact_match" and values[0] in (0, 1):
            low, high = clopper_pearson(round(values[0]) * units, units, alpha)
        method = f"{what.format(tokens=tokens)}; bootstrap by {units:,} units"
        enough = len(some) >= FEWEST and resample.enough(groups)
        figures.append(
            Figure(name=f"{prefix}{name}", value=float(values[column]), low=low, high=high, floor=0.0, ceiling=1.0,
                   n=len(some), method=method, resolvable=enough)
        )  # fmt: skip
    return figures


_FIGURES = {
    "exact_match": "share of held-out prompts whose greedy answer of at most {tokens} tokens is the record's completion, white "
    "space aside",
    "rouge_l": "mean F-measure of ROUGE-L (Lin 2004) between greedy answers of at most {tokens} tokens and the records' "
    "completions",
    "next_token_accuracy": "share of the completions' tokens that are ranked first, after the tokens before them",
}


def exact_match(completion: str, text: str) -> bool:
    """Whether an answer is the completion, white space aside.

    >>> exact_match("Yes,  it is.", " Yes, it is."), exact_match("Yes", "yes")
    (True, False)
    """
    return completion.split() == text.split()


def rouge_l(completions: Sequence[str], texts: Sequence[str]) -> list[float]:
    """The F-measure of ROUGE-L of each answer: longest common subsequence of lower-case words, over both lengths.

    >>> rouge_l(["the cat sat down"], ["The cat lay down."])
    [0.75]
    """
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes a second

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return [float(scorer.score(*pair)["rougeL"].fmeasure) for pair in zip(completions, texts, strict=True)]
