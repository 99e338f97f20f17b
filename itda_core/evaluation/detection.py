"""Detection: does a latent's title tell where else the latent is used?

A latent's title is a token in its context: its source, or for an autoencoder its strongest token.
Tokens that use the latent are to be told from tokens that do not, by nothing but their nearness to
the title in the embedding of another model. After the detection scores of Bills et al. (2023) and
Paulo et al. (2025), with a token for the explanation and a cosine for the judge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from itda_core.errors import RunError
from itda_core.evaluation.detection_examples import (
    MIN_USES,
    Examples,
    draw_examples,
    draw_latents,
)
from itda_core.evaluation.intervals import resampled_interval
from itda_core.model.model import Model
from itda_core.runs.latent_uses import CodeTable, ReadTokens, read_tokens, title_tokens
from itda_core.runs.run import Run
from itda_core.tables import read_frame

EMBEDDER = "minilm-l6"
SAMPLE = 200
AGAINST = ("any token", "same token")
_EMBED_TOGETHER = 64


@dataclass
class Detection:
    """How far the reading is; the last one has the result."""

    total_prompts: int
    prompts: int = 0
    scores: list[dict[str, Any]] = field(default_factory=list)
    """see `detection_scores`"""
    latents: list[dict[str, Any]] = field(default_factory=list)
    """latent, title, uses (outside the title's prompt), auroc, by auroc"""


def detect(
    run: Run,
    embedder: Model,
    sample: int = SAMPLE,
    seed: int = 0,
    strong_share: float | None = None,
) -> Iterator[Detection]:
    """Score `sample` of a run's latents, drawn by `seed` from those that at least MIN_USES
    explored tokens use outside the prompt of their title. Strong uses are told by the signs of the
    coefficients, or with `strong_share` are the largest positive ones that hold this share, in
    (0, 1], of the latent's squared coefficients.

    Only the run's files are read, not its model. Yields after each batch of prompts that the
    embedder reads; the last is the result. Raises RunError where no latent has that many uses.
    """
    prompts = read_frame(run.directory / "prompts.parquet")
    sources = read_frame(run.directory / "sources.parquet").sort_values("latent")
    tokens = read_tokens(prompts)
    titles = title_tokens(sources, prompts, tokens)
    codes = CodeTable(run.directory / "codes.parquet", prompts, tokens)
    survey = codes.survey(titles)
    latents = draw_latents(survey.uses, sample, seed)
    if not len(latents):
        raise RunError(
            f"No latent of {run.run_id} is used by {MIN_USES} explored tokens. Explore more tokens."
        )
    uses = codes.uses_of(latents)
    examples = draw_examples(latents, uses, titles[latents], tokens, survey, seed, strong_share)
    needed = np.unique(np.concatenate([titles[latents], *map(np.ravel, _drawn(examples))]))
    needed = needed[needed >= 0]
    result = Detection(len(np.unique(tokens.prompts[needed])))
    vectors = np.zeros((len(needed), embedder.d_model), np.float32)
    for result.prompts, rows, some in embed(embedder, tokens, needed):
        vectors[rows] = some
        yield result
    nearness = Nearness(needed, vectors)
    result.scores, by_latent = detection_scores(nearness, titles[latents], examples)
    table = sources.iloc[latents].assign(uses=survey.uses[latents], auroc=by_latent)
    table = table.rename(columns={"token": "title"})[["latent", "title", "uses", "auroc"]]
    result.latents = table.dropna().sort_values("auroc", ascending=False).to_dict("records")
    yield result


def _drawn(examples: Examples) -> list[np.ndarray]:
    return [*examples.uses.values(), *examples.alike.values(), examples.others]


# The judge


def embed(
    embedder: Model, tokens: ReadTokens, needed: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Embeddings of the tokens `needed` (sorted), as unit vectors of the embedder's last layer.

    Yields the number of prompts read so far, the places in `needed`, and [n, d_model]: the mean of
    the embedder's tokens that share a character with the token, zeros where none does. The embedder
    reads each prompt as far as the run has, and its own context length.
    """
    owners = tokens.prompts[needed]
    prompts = np.unique(owners)
    last = embedder.n_layers - 1
    firsts = range(0, len(prompts), _EMBED_TOGETHER)
    batches = [prompts[first : first + _EMBED_TOGETHER] for first in firsts]
    texts = [embedder.tokenize([tokens.texts[prompt] for prompt in batch]) for batch in batches]
    for step in embedder.capture_each(texts, [last], skip_first=False):
        if step.value is None:
            continue
        batch, read, hidden = batches[step.number], texts[step.number], step.value
        rows, vectors = np.flatnonzero(np.isin(owners, batch)), []
        for number, prompt in enumerate(batch):
            here = slice(*np.searchsorted(hidden.prompts, [number, number + 1]).tolist())
            spans = read.spans[number, hidden.positions[here]]
            wanted = tokens.spans[needed[owners == prompt]]
            weights = torch.from_numpy(shares(wanted, spans)).to(hidden[last].device)
            vectors.append(weights @ hidden[last][here])
        units = torch.nn.functional.normalize(torch.cat(vectors), dim=1)
        yield firsts[step.number] + len(batch), rows, units.cpu().numpy()


def shares(wanted: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The weight of each of `spans` in each of `wanted`, [n_wanted, n_spans] float32: equal for
    those that share a character with it, summing to 1 (0 where there are none). Both: [n, 2]."""
    starts = np.maximum(wanted[:, None, 0], spans[None, :, 0])
    meets = starts < np.minimum(wanted[:, None, 1], spans[None, :, 1])
    return (meets / np.maximum(meets.sum(1, keepdims=True), 1)).astype(np.float32)


class Nearness:
    """Cosines of tokens with titles, from their embeddings."""

    def __init__(self, numbers: np.ndarray, vectors: np.ndarray):
        """numbers: [n] sorted, the tokens that vectors, [n, d] unit rows, are of; zero rows are
        tokens that have none."""
        self._numbers, self._vectors = numbers, vectors

    def of(self, titles: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """[n_latents, m] cosines of each latent's tokens with its title; NaN where there is no
        token or no embedding. titles: [n_latents], tokens: [n_latents, m], −1 for none."""
        title_vectors, vectors = self._take(titles), self._take(tokens)
        cosines = np.einsum("ld,lmd->lm", title_vectors, vectors).astype(np.float64)
        missing = ~vectors.any(2) | ~title_vectors.any(1)[:, None] | (tokens < 0)
        return np.where(missing, np.nan, cosines)

    def _take(self, tokens: np.ndarray) -> np.ndarray:
        return self._vectors[np.searchsorted(self._numbers, np.maximum(tokens, self._numbers[0]))]


# The scores


def detection_scores(
    nearness: Nearness, titles: np.ndarray, examples: Examples
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """One row for each kind of use and what it is told from, and the AUROC by latent of all uses
    against any tokens.

    Rows hold uses (the kind), against, latents (that have any), auroc (the mean over latents) with
    low and high (95 %, over latents), accuracy (balanced, see `threshold_accuracy`) and shuffled:
    the AUROC when each latent has the title of another.
    """
    rows = []
    by_latent = np.full(len(titles), np.nan)
    shuffled_titles = np.roll(titles, 1)
    for kind, used in examples.uses.items():
        for against in AGAINST:
            pairs = _paired(used, examples.alike[kind], examples.others, against)
            near, other = (nearness.of(titles, drawn_tokens) for drawn_tokens in pairs)
            values = auroc(near, other)
            if kind == "all" and against == AGAINST[0]:
                by_latent = values
            shuffled = auroc(
                *(nearness.of(shuffled_titles, drawn_tokens) for drawn_tokens in pairs)
            )
            rows.append(
                {
                    "uses": kind,
                    "against": against,
                    **mean_interval(values),
                    "accuracy": threshold_accuracy(near, other),
                    "shuffled": mean_interval(shuffled)["auroc"] if len(titles) > 1 else None,
                }
            )
    return rows, by_latent


def _paired(
    used: np.ndarray, alike: np.ndarray, others: np.ndarray, against: str
) -> tuple[np.ndarray, np.ndarray]:
    """The uses and what they are told from; a use without a token alike is left out with it."""
    return (used, others) if against == AGAINST[0] else (np.where(alike < 0, -1, used), alike)


def auroc(uses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The chance that a use is nearer than another token, ties counting half, [n_latents].

    uses: [n_latents, a], others: [n_latents, b], NaN where there is none; NaN without any pair.
    """
    uses, others = uses[:, :, None], others[:, None, :]
    wins = ((uses > others) + 0.5 * (uses == others)).sum((1, 2))
    pairs = (~np.isnan(uses) & ~np.isnan(others)).sum((1, 2))
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)


def mean_interval(values: np.ndarray) -> dict[str, Any]:
    """latents, auroc, low, high: the mean of those that are a number, and its 95 % interval by
    resampling latents."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {"latents": 0, "auroc": None, "low": None, "high": None}
    low, high = resampled_interval(lambda drawn: drawn.mean(1), values)
    return {"latents": len(values), "auroc": float(values.mean()), "low": low, "high": high}


def threshold_accuracy(uses: np.ndarray, others: np.ndarray) -> float | None:
    """Balanced accuracy of "nearer than t is a use" with one t for all latents: the best on one
    half of the latents, measured on the other, and the other way round. None without both halves.
    Shapes as in `auroc`."""
    accuracies = []
    for fitted in (0, 1):
        halves = [(values[fitted::2], values[1 - fitted :: 2]) for values in (uses, others)]
        (fit_uses, uses_left), (fit_others, others_left) = (
            [half[~np.isnan(half)] for half in values] for values in halves
        )
        if not all(map(len, (fit_uses, uses_left, fit_others, others_left))):
            return None
        t = best_threshold(fit_uses, fit_others)
        accuracies.append(((uses_left > t).mean() + (others_left <= t).mean()) / 2)
    return float(np.mean(accuracies))


def best_threshold(uses: np.ndarray, others: np.ndarray) -> float:
    """The t with the highest balanced accuracy of "above t is a use"; [n] and [m] numbers."""
    candidates = np.unique(np.concatenate([uses, others]))
    above = 1 - np.searchsorted(np.sort(uses), candidates, side="right") / len(uses)
    below = np.searchsorted(np.sort(others), candidates, side="right") / len(others)
    return float(candidates[np.argmax(above + below)])
