"""How far each latent of a run can be trusted: its strong uses, where they stand, and how well its
source tells them from other tokens.

All of it is told by uses outside the prompt of the source, which can't speak for itself.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itda_core.analysis.judged_tokens import DRAWN, MOST_DRAWN, SEED, Drawn, ReadRun, draw
from itda_core.analysis.nearness import Judge
from itda_core.errors import ModelError
from itda_core.evaluation.batch import each_run
from itda_core.evaluation.detection import EMBEDDER, Nearness, auroc
from itda_core.evaluation.intervals import auroc_interval
from itda_core.evaluation.strong_uses import Thresholds, lowest_cuts, strong_thresholds
from itda_core.model.loading import load_model
from itda_core.progress import Progress
from itda_core.runs.latent_scores import CHANCE, UNSIGNED, save_scores, scored_digest
from itda_core.runs.run import Run

ON_WORD_FOR_EACH_OTHER, ON_WORD_USES = 9, 10
"""Uses on the word of the source for each other one where it is said to be the word's alone, and
uses that must be"""
_IN_SHORT = (
    "strong_squares", "auroc", "same_auroc", "strong_first", "strong_on_token", "strong_on_word",
)  # fmt: skip
_TOGETHER = 64
"""Latents whose cosines are in memory at once"""


def score_runs(
    runs: Sequence[Run], device: str | None = None, memory: int | None = None
) -> Iterator[Progress]:
    """Score the latents of one run after another and keep each table with its run.

    device, memory: of the model that judges nearness, as `load_model` takes them. Where that is not
    installed the rest is scored, and a note says so. A run that can't be scored keeps no other from
    it.
    """
    yield Progress("loading")
    try:
        judge, note = Judge(load_model(EMBEDDER, device=device, memory=memory)), ""
    except ModelError as error:
        judge, note = None, f"How near uses are to their sources is not judged. {error}"
    yield from each_run(runs, functools.partial(_score_run, judge, note, len(runs)))


def _score_run(
    judge: Judge | None, note: str, n_runs: int, run: Run, progress: Progress, before: float
) -> Iterator[Progress]:
    """before: the fraction of all runs that is done."""
    progress.stage, progress.fraction, progress.notes = "scoring", before, [note] if note else []
    yield progress
    started, of = time.monotonic(), scored_digest(run)
    for done, found in score_latents(ReadRun.of(run), judge):
        if found is None:
            progress.follow(done, before, 1 / n_runs, time.monotonic() - started)
            yield progress
    about = {
        "run_id": run.run_id,
        "digest": of,
        "judged": found.judged,
        "embedder": EMBEDDER if judge else "",
        "seed": SEED,
        "tokens": run.metrics["explored_tokens"],
        "seconds": time.monotonic() - started,
    }
    save_scores(run, about, found.table)
    progress.results.append({**about, **in_short(found.table)})


@dataclass(frozen=True)
class Scored:
    """The scores of a run's latents."""

    table: dict[str, np.ndarray]
    """the columns of SCORE_COLUMNS, [n_latents] each, NaN where there is no such number"""
    judged: str
    """which uses were told from other tokens: "strong", or "all" of a run without negative
    coefficients"""


def score_latents(
    read: ReadRun, judge: Judge | None = None
) -> Iterator[tuple[float, Scored | None]]:
    """Score a run: how far it is, in [0, 1], and at the end the scores, without a judge those that
    need none."""
    uses, elsewhere, n_latents = read.uses, read.is_elsewhere, len(read.titles)
    found = strong_thresholds(uses.latents[elsewhere], uses.coefficients[elsewhere], n_latents)
    with np.errstate(invalid="ignore"):
        is_strong = uses.coefficients >= found.threshold[uses.latents]
    table = _counted(read, found, is_strong)
    is_unsigned = bool((found.why == UNSIGNED).all())
    count = MOST_DRAWN if judge and judge.reads_all(read.tokens) else DRAWN
    drawn = draw(read, elsewhere if is_unsigned else elsewhere & is_strong, count)
    nearness = None
    if judge:
        needed = np.unique(np.concatenate([read.titles, *map(np.ravel, vars(drawn).values())]))
        for done, nearness in judge.read(read.prompts, read.tokens, needed[needed >= 0]):
            if nearness is None:
                yield done, None
    table |= _detected(nearness, read.titles, drawn)
    yield 1.0, Scored(table, "all" if is_unsigned else "strong")


def in_short(table: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the scores of a run come to: how many latents have a threshold, the share of all uses
    that are strong, medians over latents, which a massive activation does not move, and of what
    share of the latents with an AUROC the interval lies above chance; None where there is nothing
    to count."""
    has = np.isfinite(table["threshold"])
    n_uses = int(table["uses"].sum())
    return {
        "latents": len(has),
        "with_threshold": int(has.sum()),
        "strong_share": float(np.nansum(table["strong"]) / n_uses) if n_uses else None,
        **{f"median_{name}": _median(table[name]) for name in _IN_SHORT},
        "auroc_above_chance": _above_chance(table["auroc_low"]),
        "same_auroc_above_chance": _above_chance(table["same_low"]),
    }


def _above_chance(low: np.ndarray) -> float | None:
    """The share of intervals that begin above chance, of those that there are."""
    low = low[~np.isnan(low)]
    return float((low > CHANCE).mean()) if len(low) else None


def _median(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmedian(values))


def _counted(read: ReadRun, found: Thresholds, is_strong: np.ndarray) -> dict[str, np.ndarray]:
    """Everything but the AUROCs."""
    uses, titles, n_latents = read.uses, read.titles, len(read.titles)
    latents, has = uses.latents, ~np.isnan(found.threshold)
    counts = np.bincount(latents, minlength=n_latents)
    strong = np.bincount(latents[is_strong], minlength=n_latents).astype(float)
    squares = uses.coefficients.astype(np.float64) ** 2
    of_strong = np.bincount(latents[is_strong], squares[is_strong], n_latents)
    of_all = np.bincount(latents, squares, n_latents)
    table = {
        "latent": np.arange(n_latents),
        "threshold": found.threshold,
        "why": found.why,
        "uses": counts,
        "strong": np.where(has, strong, np.nan),
        "strong_squares": np.where(has, _ratio(of_strong, of_all), np.nan),
        "filler": found.filler,
    }
    token, word = _on_source(read)
    of_title = {"on_token": token, "on_word": word}
    for prefix, among in (("", read.is_elsewhere), ("strong_", read.is_elsewhere & is_strong)):
        total = np.bincount(latents[among], minlength=n_latents)
        for name, holds in {"first": uses.steps == 0, **of_title}.items():
            share = _ratio(np.bincount(latents[among & holds], minlength=n_latents), total)
            table[prefix + name] = np.where((titles < 0) & (name in of_title), np.nan, share)
    return table | _on_word_alone(read, word)


def _on_word_alone(read: ReadRun, is_on_word: np.ndarray) -> dict[str, np.ndarray]:
    """From which coefficient up nine of ten uses are on the word of the source, and how many uses
    that are; NaN where it is not so of ON_WORD_USES. is_on_word: [n_uses] bool."""
    among = read.is_elsewhere & (read.uses.coefficients > 0) & (read.titles[read.uses.latents] >= 0)
    of = read.uses.latents[among], read.uses.coefficients[among], is_on_word[among]
    cuts = lowest_cuts(*of, ON_WORD_FOR_EACH_OTHER, len(read.titles))
    n_uses = cuts.wanted + cuts.others
    is_enough = n_uses >= ON_WORD_USES
    return {
        "word_above": np.where(is_enough, cuts.cut, np.float32(np.nan)),
        "word_uses": np.where(is_enough, n_uses, np.nan),
    }


def _on_source(read: ReadRun) -> tuple[np.ndarray, np.ndarray]:
    """Whether each use is on the token of its latent's title, and whether on its word, [n_uses]
    bool: the same letters and digits, or the same token where the title has none."""
    uses, titles = read.uses, read.titles
    token = read.tokens.words[uses.tokens] == read.tokens.words[titles][uses.latents]
    own = read.words[titles][uses.latents]
    return token, np.where(own >= 0, read.words[uses.tokens] == own, token)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is no whole."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _detected(nearness: Nearness | None, titles: np.ndarray, drawn: Drawn) -> dict[str, np.ndarray]:
    """The AUROCs with their intervals, and from how many uses they are; NaN without a nearness."""
    shape = len(titles)
    names = ("auroc", "auroc_low", "auroc_high", "same_auroc", "same_low", "same_high")
    found = {name: np.full(shape, np.nan) for name in names}
    found |= {name: np.zeros(shape, np.int64) for name in ("drawn", "same_drawn")}
    for first in range(0, shape if nearness else 0, _TOGETHER):
        part = slice(first, first + _TOGETHER)
        uses, others, alike = (
            nearness.of(titles[part], tokens[part])
            for tokens in (drawn.uses, drawn.others, drawn.alike)
        )
        paired = np.where(np.isnan(alike), np.nan, uses)
        sure = effective_counts(drawn.others[part]), effective_counts(drawn.alike[part])
        _fill(found, part, "", uses, others, sure[0])
        _fill(found, part, "same_", paired, alike, sure[1])
    return found


def effective_counts(tokens: np.ndarray) -> np.ndarray:
    """How many tokens those drawn stand for, [n]: n² / Σm² where each of n is there m times (Kish
    1965). Of a rare word the same few tokens come again and again. tokens: [n, count], −1 where
    there is none."""
    is_there = tokens >= 0
    alike = (tokens[:, :, None] == tokens[:, None, :]) & is_there[:, :, None]
    return is_there.sum(1) ** 2 / np.maximum(1, alike.sum((1, 2)))


def _fill(
    found: dict[str, np.ndarray],
    part: slice,
    prefix: str,
    near: np.ndarray,
    far: np.ndarray,
    n_far: np.ndarray,
) -> None:
    """near: cosines of the uses, far: of what they are told from, [n_latents, count] each; n_far:
    for how many tokens these stand."""
    values, n_near = auroc(near, far), (~np.isnan(near)).sum(1)
    low, high = auroc_interval(values, n_near, n_far)
    interval = prefix or "auroc_"
    found[f"{prefix}auroc"][part], found[f"{prefix}drawn"][part] = values, n_near
    found[f"{interval}low"][part], found[f"{interval}high"][part] = low, high
