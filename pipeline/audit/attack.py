"""One adapter under attack: the model, the records that were drawn, all their scores, and a method for each attack."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import models
from pipeline.audit import canary, completions, control, extraction, games, members, ranking, records, removed, sampler, utility
from pipeline.audit.figures import Figure, Series
from pipeline.audit.scoring import Labelled, score
from pipeline.canaries import SCORE, Canary, Manifest, Planted, planted_records
from pipeline.corpus import Part, Record
from pipeline.folders import Progress
from pipeline.policy import Policy
from pipeline.train.examples import Example, encode

if TYPE_CHECKING:
    from torch import nn

    from pipeline.audit.scoring import Scores
    from pipeline.train.loop import Trained

_TWIN = 100_000
"""Tokens that training the twin counts for in the progress."""

_OF_CLAIMS = ("claim_p", "outcome")


class Attack:
    """The model, the drawn records and all their scores; then one method an attack."""

    def __init__(
        self,
        planted: Planted,
        trained: Trained,
        manifest: Manifest,
        policy: Policy,
        progress: Progress,
        *,
        registered: bool,
        claimed: bool = True,
        sources: tuple[Path, Path] | None = None,
        seed: int | None = None,
    ) -> None:
        """`registered`: the ledger holds the manifest's digest from before training; `claimed`: ε is, by a known mechanism.

        `seed`: of a later audit's own draws.
        """
        self._claimed = claimed
        self._seed = int(manifest.seed, 16) if seed is None else seed
        self.seconds: dict[str, float] = {}
        self._trained, self._manifest, self._policy, self._progress = trained, manifest, policy, progress
        self._alpha = policy.audit.alpha
        self._done = self._total = 0
        with self._timed("load"):
            self._model, tokenizer = models.with_adapter(trained.base, trained.adapter)
            self._tokenizer: Any = tokenizer
            inside = max(policy.audit.membership_records, policy.audit.extraction_records)
            outside = max(inside, policy.audit.utility_records)
            by_person = trained.mechanism.unit == "person"
            self._drawn = records.draw(planted, manifest, inside, outside, self._rng("records"), by_person=by_person)
            planted_examples = encode(_as_records(manifest), tokenizer, policy.data.max_tokens)
            self._start = planted_examples[0].input_ids[0]
            self._canaries = canary.sequences(manifest.canaries, self._start)
            self._sides = canary.choose(manifest.of("random"), policy.audit.exposure_canaries, self._rng("exposure"))
            inside, outside = (encode(side, tokenizer, policy.data.max_tokens) for side in self._drawn.sides)
            self._removed, self._targets = None, []
            if sources:
                rng = self._rng("removed values")
                self._removed = removed.gather(*sources, *self._drawn.ids, rng, by_person=by_person)
                played = policy.audit.games_values
                self._targets = games.targets(self._removed, tokenizer, policy.data.max_tokens, played, rng)
        self.findings: list[dict[str, str | int]] = []
        self._conditions = {
            "manifest_sealed": True,  # or the audit would have stopped
            "manifest_in_ledger_before_training": registered,
            "unchanged_by_scrubber": bool(manifest.scrubber),
            "score_as_sealed": manifest.score == SCORE,
            "planted_as_drawn": self._drawn.planted_as_drawn,
            "tokens_as_trained": all(
                example.input_ids[: len(sequence.input_ids)] == sequence.input_ids
                for example, sequence in zip(planted_examples, self._canaries, strict=True)
            ),
            # All of them, also those left out, as units without records: n, and with it q and σ, must not tell the coins.
            "canaries_counted_as_units": trained.mechanism.units
            == planted.train_units
            == self._drawn.real_units + manifest.units(trained.mechanism.unit),
        }
        self._score(inside, outside)

    def _score(self, inside: list[Example], outside: list[Example]) -> None:
        """Run base and tuned model over the canaries and both sides' records, once each."""
        sequences: list[Labelled] = [*self._canaries, *inside, *outside]
        self._asked = completions.asked(self._drawn.held_out, outside, self._policy.audit.completion_records)
        self._total = 2 * sum(len(sequence.input_ids) for sequence in sequences)
        self._total += self._cost(*self._sides) + (1 + self._policy.audit.control) * self._cost(*self._ladder())
        self._total += self._policy.audit.control * _TWIN
        if self._trained.base.adaptation is not None:
            self._total += sum(len(one.input_ids) for one in outside[: self._most()])
        self._total += (2 + self._policy.audit.control) * len(self._asked) * self._policy.audit.completion_tokens
        if self._removed:
            self._total += self._policy.audit.samples * self._policy.data.max_tokens
            self._total += sum(target.packed.tokens for side in self._targets for target in side)
        with self._timed("scoring"):
            base = self._before(sequences)
            self._bare, self._replies = self._of_base(base.pick(range(len(sequences) - len(outside), len(sequences))), outside)
            self._model.merge_adapter()  # same weights, summed once instead of at every token
            tuned = score(self._model, sequences, detailed=True, tick=self._ticker("scores of the tuned model"))
        first, second = len(self._canaries), len(self._canaries) + len(inside)
        self._base, self._tuned = base.pick(range(first)), tuned.pick(range(first))
        cuts = range(first, second), range(second, len(sequences))
        self._members, self._held_out = (
            members.Side(records, examples, tuned.pick(cut), base.pick(cut))
            for records, examples, cut in zip(self._drawn.sides, (inside, outside), cuts, strict=True)
        )

    def _before(self, sequences: list[Labelled]) -> Scores:
        """Scores under the model that private training began from: what it changed is what an attacker looks for."""
        tick = self._ticker("scores of the base model")
        if self._trained.base.adaptation is not None:  # the adapter holds the public one, too
            return score(models.load(self._trained.base)[0], sequences, tick=tick)
        with self._model.disable_adapter():
            return score(self._model, sequences, tick=tick)

    def _of_base(self, before: Scores, outside: list[Example]) -> tuple[Scores, list[str]]:
        """Of the base model as it is: scores of the held-out records that are asked for, and its answers to prompts."""
        with self._model.disable_adapter():
            if self._trained.base.adaptation is not None:
                before = score(self._model, outside[: self._most()], tick=self._ticker("scores of the base model"))
            return before, self._answers(self._model, "answers of the base model")

    def _most(self) -> int:
        """Held-out records, from the first, on which utility and answers are measured."""
        return max([self._policy.audit.utility_records, *(one.row + 1 for one in self._asked)])

    def _answers(self, model: Any, attack: str) -> list[str]:
        most, tick = self._policy.audit.completion_tokens, self._ticker(attack)
        return completions.answers(model, self._tokenizer, self._asked, most, tick=tick)

    def canaries(self) -> tuple[list[Figure], Series]:
        """Lower bounds on ε from one run."""
        scores, coins = self._one_run(self._tuned)
        figures = self._bounds(scores, self.seconds["scoring"])
        return figures, {"epsilon.scores.planted": _finite(scores[coins]), "epsilon.scores.control": _finite(scores[~coins])}

    def exposure(self) -> tuple[list[Figure], Series]:
        """Exposure of planted canaries and of controls: the random ones, then the personal ones by number of copies."""
        with self._timed("exposure"):
            rng = self._rng("checks")
            ranked = self._rank(self._model, self._sides, rng, "exposure")
            figures = canary.exposure_figures(ranked, self._unscored(), self._alpha, self._rng("intervals"))
            size = ranked.space_size
            series: Series = {
                "exposure.planted": sorted(canary.exposures(ranked.planted, size), reverse=True),
                "exposure.control": sorted(canary.exposures(ranked.control, size), reverse=True),
            }
            climbed, bits = self._climbed(self._model, "exposure by copies", rng)
            return figures + climbed, series | bits

    def control(self) -> tuple[list[Figure], Series]:
        """The same on a twin that was trained without privacy: what these attacks look like where there is a leak."""
        if not self._policy.audit.control:
            return [], {}
        rng = self._rng("control")

        counted = 0

        def step(done: int, total: int, **_: float | int | str) -> None:
            nonlocal counted
            counted, before = _TWIN * done // total, counted
            self._advance(counted - before, attack="control: training a twin")

        with self._timed("control"):
            planted = encode(planted_records(self._manifest), self._tokenizer, self._policy.data.max_tokens)
            others = list(self._members.first(self._policy.audit.membership_records).examples)
            beside = max(1, self._trained.mechanism.expected_batch // 32)
            twin, how = control.train(self._trained.base, planted, others, beside, self._policy, rng, progress=step)
            scores, _ = self._one_run(score(twin, self._canaries))
            figures = [*self._bounds(scores, 0.0), *self._climbed(twin, "control: exposure", rng)[0]]
            if self._asked:
                own = score(twin, [self._held_out.examples[one.row] for one in self._asked])
                figures += self._compared("utility.", self._answers(twin, "control: answers"), own)
        kept = [one for one in figures if not one.name.endswith((*_OF_CLAIMS, "dp_bits"))]
        seconds = self.seconds["control"]
        return [
            one.model_copy(update={"name": f"control.{one.name}", "method": f"{one.method}; {how}", "seconds": seconds})
            for one in kept
        ], {}

    def _one_run(self, tuned: Scores) -> tuple[np.ndarray, np.ndarray]:
        """The sealed score and the coin of every random canary, [m] each."""
        rows = [row for row, one in enumerate(self._manifest.canaries) if one.family == "random"]
        coins = np.array([self._manifest.canaries[row].included for row in rows])
        return canary.score_difference(tuned.pick(rows), self._base.pick(rows)), coins

    def _bounds(self, scores: np.ndarray, seconds: float) -> list[Figure]:
        trained = self._trained
        claim = (trained.epsilon, (trained.mechanism, trained.steps)) if self._claimed else (None, None)
        conditions = self._conditions
        return canary.epsilon_figures(self._manifest, scores, claim[0], trained.delta, conditions, seconds, claim[1])

    def _climbed(self, model: nn.Module, attack: str, rng: np.random.Generator) -> tuple[list[Figure], Series]:
        sides = self._ladder()
        if not sides[0]:
            return [], {}
        ranked = self._rank(model, sides, rng, attack)
        limits = self._limits() if model is self._model else {}
        figures = canary.ladder_figures(ranked, limits, self._unscored(), self._alpha, self._rng("intervals"))
        return figures, canary.ladder_series(ranked)

    def _limits(self) -> dict[int, float]:
        """ε of a canary's copies together: one person has them all, and else they are a group of records."""
        trained, times = self._trained, sorted({one.copies for one in self._manifest.of("personal")})
        if not self._claimed:
            return {}
        if trained.mechanism.unit == "person":
            return dict.fromkeys(times, trained.epsilon)
        return {size: trained.epsilon if size == 1 else trained.mechanism.group_epsilon(size) for size in times}

    def _ladder(self) -> tuple[list[Canary], list[Canary]]:
        some = self._manifest.of("personal")
        return [one for one in some if one.included], [one for one in some if not one.included]

    def _rank(
        self, model: nn.Module, sides: tuple[list[Canary], list[Canary]], rng: np.random.Generator, attack: str
    ) -> ranking.Ranked:
        counted = 0
        space = self._manifest.spaces[(sides[0] + sides[1])[0].family]

        def tick(ranked: int) -> None:
            nonlocal counted
            counted += ranked
            self._advance(ranked * ranking.tokens(space), attack=attack, canaries=counted)

        return ranking.rank(model, space, *sides, self._start, rng, tick=tick)

    def _cost(self, planted: list[Canary], control: list[Canary]) -> int:
        every = planted + control
        return len(every) * ranking.tokens(self._manifest.spaces[every[0].family]) if planted else 0

    def _unscored(self) -> dict[str, bool]:
        return {name: holds for name, holds in self._conditions.items() if name != "score_as_sealed"}

    def membership(self) -> tuple[list[Figure], Series]:
        """Six attacks on real records, the strongest of them, and the splitter check that they rest on."""
        most, repeated = self._policy.audit.membership_records, self._drawn.repeated
        with self._timed("membership"):
            sides = self._members.first(most), self._held_out.first(most)
            decode, rng = self._tokenizer.decode, self._rng("membership")
            figures, series = members.attack(*sides, decode, repeated=repeated, alpha=self._alpha, rng=rng)
        return self._stamped("membership", figures), series

    def extraction(self) -> tuple[list[Figure], Series]:
        """What greedy decoding and sampling give of training records, beside records that were never trained on."""
        rules, most = self._policy.audit, self._policy.audit.extraction_records
        note = f"{self._drawn.repeated:,} records of repeated texts left out"
        lengths = {"prefix": rules.prefix_tokens, "suffix": rules.suffix_tokens}
        with self._timed("extraction"):
            sides = ((side.examples, side.tuned) for side in (self._members.first(most), self._held_out.first(most)))
            figures = extraction.measure(*sides, **lengths, alpha=self._alpha, note=note)
        return self._stamped("extraction", figures), {}

    def games(self) -> tuple[list[Figure], Series]:
        """Values that scrubbing removed: left elsewhere, written freely, reconstructed at their place, told from others."""
        if not self._removed:
            return [], {}
        figures = removed.figures(self._removed)
        if not np.isfinite(self._members.tuned.totals).all():
            return figures, {}  # a model that diverged cannot be sampled from
        rules, end = self._policy, self._tokenizer.eos_token_id
        count, length, tick = rules.audit.samples, rules.data.max_tokens, self._ticker("free sampling")
        with self._timed("games"):
            drawn = sampler.sample(self._model, self._start, end, count, length, self._rng("sampling"), tick=tick)
            texts = [self._tokenizer.decode(ids) for ids in drawn]
            written, series, found = games.sampled(self._removed, texts, self._alpha)
            outcomes, error = games.play(self._model, self._targets, tick=self._ticker("removed values"))
            played, pictures = games.figures(outcomes, error, self._alpha)
        self.findings = games.findings(self._removed, found, outcomes[0])
        return figures + self._stamped("games", written + played), series | pictures

    def utility(self) -> tuple[list[Figure], Series]:
        """Perplexity and accuracy on held-out records, before and after."""
        side = self._held_out.first(self._policy.audit.utility_records)
        if not side.base.tokens.sum():
            return [], {}
        groups, rng = records.groups(side.records), self._rng("utility")
        bare = self._bare.pick(range(len(side.records)))
        adapted = side.base if self._trained.base.adaptation is not None else None
        figures = utility.measure(bare, side.tuned, groups, alpha=self._alpha, rng=rng, adapted=adapted)
        return figures + self._completed(), {}

    def _completed(self) -> list[Figure]:
        """How close the answers to held-out prompts come to the records' own, for base and tuned model."""
        if not self._asked or not np.isfinite(self._held_out.tuned.totals).all():
            return []
        with self._timed("completions"):
            tuned = self._answers(self._model, "answers of the tuned model")
            rows = [one.row for one in self._asked]
            sides = {
                "utility.base_": (self._replies, self._bare.pick(rows)),
                "utility.": (tuned, self._held_out.tuned.pick(rows)),
            }
            made = [one for name, side in sides.items() for one in self._compared(name, *side)]
        return self._stamped("completions", made)

    def _compared(self, prefix: str, texts: list[str], scores: Scores) -> list[Figure]:
        tokens = self._policy.audit.completion_tokens
        rng = self._rng("completions")
        return completions.measure(prefix, self._asked, texts, scores, tokens=tokens, alpha=self._alpha, rng=rng)

    def _stamped(self, attack: str, figures: list[Figure]) -> list[Figure]:
        """The figures with the seconds that their attack took."""
        return [figure.model_copy(update={"seconds": self.seconds[attack]}) for figure in figures]

    def _rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, seeded from the sealed manifest: nobody can choose a lucky draw."""
        return np.random.default_rng([self._seed, zlib.crc32(purpose.encode())])

    def _ticker(self, attack: str) -> Callable[[int], None]:
        return lambda tokens: self._advance(tokens, attack=attack)

    def _advance(self, tokens: int, **figures: float | int | str) -> None:
        self._done += tokens
        self._progress(min(self._done, self._total), self._total, **figures)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def _as_records(manifest: Manifest) -> list[Record]:
    return [Record(one.id, one.id, (Part("text", one.text),)) for one in manifest.canaries]


def _finite(values: np.ndarray) -> list[float]:
    """Numbers for a picture, rounded; those that JSON cannot carry are left out."""
    return np.round(values[np.isfinite(values)], 6).tolist()
