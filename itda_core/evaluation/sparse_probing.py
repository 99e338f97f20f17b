"""Sparse probing: how well a few latents tell what a prompt's speech is labelled with.

As in SAEBench (Karvonen et al. 2025): the latents of a prompt are the mean over its tokens; the k
that differ most between the classes are chosen on the training part; a logistic regression on them
is tested on other prompts. The same is done with the dimensions of the activations themselves.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from itda_core.activations.massive import MASSIVE
from itda_core.activations.plan import make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.devices import in_float64, to_device, to_host
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import CorpusError
from itda_core.evaluation.intervals import resampled_interval
from itda_core.model.model import Model
from itda_core.pursuit.codes import Codes

PROBE_TOKENS = 200_000
"""More than all held-out prompts of the built-in corpus have."""
SIZES = (1, 2, 5, "all")
FOLDS = 5
_ITERATIONS = 1_000
_READING = 0.95
"""Share of a probing's time in which texts are read; the regressions take the rest."""


@dataclass(frozen=True)
class Task:
    """A question with two answers that the labels of a corpus settle."""

    name: str
    """the label asked for"""
    positive: str
    negative: str
    within: tuple[tuple[str, str], ...] = ()
    """only prompts with these labels: what would give the answer away is kept equal"""

    def answers(self, labels: Sequence[dict[str, str]]) -> np.ndarray:
        """1, 0, or −1 where the question does not apply, [n_prompts]."""
        values = {self.positive: 1, self.negative: 0}
        return np.array(
            [
                values.get(row.get(self.name), -1)
                if all(row.get(name) == value for name, value in self.within)
                else -1
                for row in labels
            ],
            dtype=np.int64,
        )


TASKS = (
    Task("party", "Republican", "Democratic"),
    Task("century", "20th", "19th"),
    # Every message of the 19th century is a letter, which would make this the century again.
    Task("delivery", "spoken", "written", within=(("century", "20th"),)),
)


@dataclass
class Probing:
    """How far the reading is; the last one has the result."""

    total_tokens: int
    prompts: int
    """how many are read in all"""
    tokens: int = 0
    read: float = 0.0
    """share of the reading that is done, in [0, 1]"""
    results: list[dict[str, Any]] = field(default_factory=list)
    """task, positive, negative (its answers), features ("latents" or "activations") and what
    `probe_features` gives; a chosen latent comes with its source's token"""

    @property
    def stage(self) -> str:
        return "averaging" if self.read < 1 else "probing"

    @property
    def fraction(self) -> float:
        """How much of the work is done, in [0, 1]."""
        return 1.0 if self.results else _READING * self.read

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {"tokens": self.tokens, "results": self.results}


def probe(
    dictionary: Dictionary,
    model: Model,
    prompts: Sequence[Prompt],
    config: TrainConfig,
    max_tokens: int = PROBE_TOKENS,
) -> Iterator[Probing]:
    """Probe a dictionary's latents and the activations that it decomposes, for each of TASKS.

    prompts: labelled ones, best such as the dictionary was not built from; they are taken in order
    of their ids, so that fewer tokens are a sample. Memory holds 4 · n_prompts · n_atoms bytes.
    Yields after each window, and while a model is read block by block, once for all of them; the
    last is the result. Raises CorpusError without labels.
    """
    layer = dictionary.hook_point.layer
    model.check_layers([layer])
    model = model.at(dictionary.hook_point.site)
    plan = make_plan(model, _labelled(prompts), config, max_tokens)
    result = Probing(plan.total_rows, len(plan.prompts))
    means = _Means(dictionary.to(model.device), len(plan.prompts))
    for step in model.capture_each(plan.in_windows(), [layer], config.skip_first):
        if step.value is not None:
            means.add(*plan.windows[step.number], step.value[layer], step.value.prompts)
            result.tokens += len(step.value.prompts)
        result.read = step.fraction
        yield result
    labels = [prompt.labels for prompt in plan.prompts]
    result.results = probe_tasks(means.features, labels)
    if not result.results:
        raise CorpusError(
            "Too few speeches were read: each answer needs two. Give more tokens or prompts."
        )
    names = dictionary.sources["token"].tolist()
    for row in result.results:
        for latent in row["chosen"]:
            latent["token"] = names[latent["feature"]] if row["features"] == "latents" else None
    yield result


def _labelled(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Those that answer a question, in order of their ids."""
    labelled = [prompt for prompt in prompts if _is_asked_about(prompt)]
    if not labelled:
        raise CorpusError(
            "These prompts have no labels to probe for. Take those of the corpus sotu."
        )
    return sorted(labelled, key=lambda prompt: prompt.prompt_id)


class _Means:
    """The mean latents and activations of each prompt, window by window."""

    def __init__(self, dictionary: Dictionary, n_prompts: int):
        self._dictionary, self._gram = dictionary, dictionary.gram()
        self.features = {
            "latents": np.zeros((n_prompts, len(dictionary)), np.float32),
            "activations": np.zeros((n_prompts, dictionary.d_model), np.float32),
        }

    def add(self, first: int, last: int, activations: torch.Tensor, prompts: np.ndarray) -> None:
        """Prompts `first` to `last`. prompts: [n_tokens], whose each row is, counted from there."""
        rows, n_prompts = np.flatnonzero(usable_rows(activations, prompts)), last - first
        x = activations[to_device(torch.from_numpy(rows), activations.device)]
        owners = prompts[rows]
        codes = self._dictionary.encode(x, gram=self._gram)
        latents = mean_latents(codes, owners, n_prompts, len(self._dictionary))
        self.features["latents"][first:last] = latents
        self.features["activations"][first:last] = mean_activations(x, owners, n_prompts)


def usable_rows(activations: torch.Tensor, prompts: np.ndarray) -> np.ndarray:
    """Which rows count towards a prompt's mean, [n_tokens] bool.

    Left out are those that are not finite, and those with more than 10 times the median norm of
    the prompt: one such token would be most of a prompt's mean. prompts: [n_tokens], whose each is.
    """
    norms = activations.norm(dim=1).cpu().numpy()
    norms = np.where(np.isfinite(norms), norms, np.nan)
    median = pd.Series(norms).groupby(prompts).transform("median").to_numpy()
    return norms <= MASSIVE * median  # false where either is not a number


def mean_activations(activations: torch.Tensor, prompts: np.ndarray, n_prompts: int) -> np.ndarray:
    """Mean over each prompt's rows, [n_prompts, d_model] float32; zero where it has none."""
    x = in_float64(activations)
    sums = torch.zeros(n_prompts, x.shape[1], dtype=torch.float64, device=x.device)
    sums.index_add_(0, to_device(torch.from_numpy(prompts), x.device), x)
    return (sums.cpu().numpy() / _counts(prompts, n_prompts)).astype(np.float32)


def mean_latents(codes: Codes, prompts: np.ndarray, n_prompts: int, n_atoms: int) -> np.ndarray:
    """Mean coefficient of each latent over each prompt's rows, [n_prompts, n_atoms] float32.

    A token that does not use a latent counts as 0, one that uses it twice as the sum.
    """
    latents, coefficients = (part.numpy() for part in to_host(codes.latents, codes.coefficients))
    cells = prompts[:, None] * n_atoms + latents
    sums = np.bincount(cells.ravel(), coefficients.ravel(), minlength=n_prompts * n_atoms)
    return (sums.reshape(n_prompts, n_atoms) / _counts(prompts, n_prompts)).astype(np.float32)


def _counts(prompts: np.ndarray, n_prompts: int) -> np.ndarray:
    return np.maximum(np.bincount(prompts, minlength=n_prompts), 1)[:, None]


def probe_tasks(
    features: dict[str, np.ndarray], labels: Sequence[dict[str, str]]
) -> list[dict[str, Any]]:
    """Every task, kind of feature and k as one row; see `probe_features`.

    features: by kind, [n_prompts, n_features]; labels: of each prompt. Left out are tasks for which
    an answer has fewer than two speeches.
    """
    rows = []
    for task in TASKS:
        answers = task.answers(labels)
        rows_asked = np.flatnonzero(answers >= 0)
        speeches = np.array([labels[number]["speech"] for number in rows_asked], dtype=object)
        by_answer = [len(set(speeches[answers[rows_asked] == answer])) for answer in (0, 1)]
        if min(by_answer) < 2:
            continue
        for kind, values in features.items():
            for row in probe_features(values[rows_asked], answers[rows_asked], speeches):
                about = {"task": task.name, "positive": task.positive, "negative": task.negative}
                rows.append({**about, "features": kind, **row})
    return rows


def probe_features(
    features: np.ndarray, answers: np.ndarray, speeches: np.ndarray
) -> list[dict[str, Any]]:
    """Accuracy with the k features that differ most between the answers, for each k of SIZES.

    features: [n_prompts, n_features]; answers: [n_prompts], 0 or 1; speeches: [n_prompts], names:
    all prompts of a speech are trained on or tested together. Each speech is tested once, by a
    probe trained on the others in `FOLDS` parts. Rows hold k, accuracy (the mean of that on both
    answers, 0.5 by chance), low and high (95 %, over speeches), n_train (the mean of the parts),
    n_test, and chosen: feature, difference (mean of answer 1 less that of 0) and folds (in how many
    of them it was chosen), as on all prompts; empty for "all".
    """
    parts = speech_folds(answers, speeches)
    orders = [_by_difference(features[train], answers[train]) for train, _ in parts]
    rows = []
    for k in SIZES:
        correct = np.zeros(len(answers), bool)
        for (train, test), order in zip(parts, orders, strict=True):
            x = features if k == "all" else features[:, order[:k]]
            correct[test] = _predicted(x[train], answers[train], x[test]) == answers[test]
        low, high = speech_interval(correct, answers, speeches)
        rows.append(
            {
                "k": k,
                "accuracy": _balanced(correct, answers),
                "low": low,
                "high": high,
                "n_train": round(float(np.mean([len(train) for train, _ in parts]))),
                "n_test": len(answers),
                "chosen": [] if k == "all" else _chosen(features, answers, orders, k),
            }
        )
    return rows


def speech_folds(answers: np.ndarray, speeches: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The numbers of the prompts that are trained on and of those that are tested, for each part.

    There are FOLDS parts, or as many as the rarer answer has speeches. A speech lies in one part
    whole; parts have about as many prompts of each answer, and nothing is left to chance.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a while: pages import this

    n_speeches = [len(set(speeches[answers == answer])) for answer in (0, 1)]
    folds = StratifiedGroupKFold(min(FOLDS, *n_speeches))
    return list(folds.split(answers, answers, speeches))


def speech_interval(
    correct: np.ndarray, answers: np.ndarray, speeches: np.ndarray
) -> tuple[float, float]:
    """95 % interval of the accuracy by resampling speeches, those of each answer by themselves:
    prompts of one speech are alike. All: [n_prompts]."""
    tables = []
    for answer in (0, 1):
        mask = answers == answer
        table = pd.Series(correct[mask]).groupby(speeches[mask]).agg(["sum", "size"])
        tables.append(table.to_numpy())
    return resampled_interval(_balanced_accuracies, *tables)


def _balanced_accuracies(*drawn: np.ndarray) -> np.ndarray:
    """[n_resamples], of the drawn speeches of each answer: [n_resamples, n_speeches, 2], how many
    prompts are right, and how many there are."""
    totals = [table.sum(1) for table in drawn]
    return sum(total[:, 0] / total[:, 1] / 2 for total in totals)


def _balanced(correct: np.ndarray, answers: np.ndarray) -> float:
    return float(np.mean([correct[answers == answer].mean() for answer in (0, 1)]))


def _differences(features: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Mean of answer 1 less that of answer 0, [n_features]."""
    means = [features[answers == answer].mean(0, dtype=np.float64) for answer in (0, 1)]
    return means[1] - means[0]


def _by_difference(features: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Features by the size of their difference, the largest first, [n_features]."""
    return np.argsort(-np.abs(_differences(features, answers)), kind="stable")


def _chosen(
    features: np.ndarray, answers: np.ndarray, orders: list[np.ndarray], k: int
) -> list[dict[str, Any]]:
    differences = _differences(features, answers)
    chosen = _by_difference(features, answers)[:k].tolist()
    return [
        {
            "feature": number,
            "difference": float(differences[number]),
            "folds": sum(number in order[:k] for order in orders),
        }
        for number in chosen
    ]


def _predicted(train: np.ndarray, answers: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What a logistic regression on `train`, [n_train, k], makes of `test`, [n_test, k].

    Both answers weigh the same. Features are divided by their spread on the training part, so
    that the penalty (C = 1) means the same for coefficients and for activations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(class_weight="balanced", max_iter=_ITERATIONS)
    pipeline = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(train, answers)
    return pipeline.predict(test)


def _is_asked_about(prompt: Prompt) -> bool:
    return any(task.answers([prompt.labels])[0] >= 0 for task in TASKS)
