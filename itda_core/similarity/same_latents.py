"""The same latents in two models: what stays, what differs, latent by latent.

Both models read the same prompts, which neither dictionary was trained on, and each encodes the
same tokens. A model is loaded and read once for its dictionaries; of its activations only the codes
stay.
"""

import functools
import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array, vstack

from itda_core.activations.massive import massive
from itda_core.config import CorpusSpec, ModelSpec
from itda_core.corpus.corpus import Prompt, load_corpus
from itda_core.devices import to_device
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.evaluation.batch import check_model, held_out_prompts
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.progress import Progress
from itda_core.runs.latent_comparisons import STRONG
from itda_core.runs.latent_scores import thresholds_of
from itda_core.runs.run import Run
from itda_core.similarity.compared_texts import ComparedTexts
from itda_core.similarity.correlations import coefficient_matrix
from itda_core.similarity.namesake_rows import Coded, in_common
from itda_core.similarity.same_sources import namesakes
from itda_core.tables import read_frame

COMPARED_TOKENS = 10_000
MIN_USES, MIN_STRONG_USES = 20, 5
"""Tokens that use a latent, or use it strongly, for it to be called changed. One use in thirty is
strong, and says more than those that fill up."""
_READING = 0.9
"""Share of the work in which models run"""


def compare_latents(
    a: Run,
    b: Run,
    max_tokens: int = COMPARED_TOKENS,
    corpus: CorpusSpec | None = None,
    device: str | None = None,
    memory: int | None = None,
    seed: int = 0,
) -> Iterator[Progress]:
    """Compare the latents of two runs that have the same sources, over the same tokens.

    The prompts are those held out of A's training that B's has not read, or those of `corpus` that
    neither has. device, memory: of the models, as `load_model` takes them; seed: of the
    permutations by which chance is told.

    The last progress has one result: what the comparison is of, the settings that it was made with,
    its sums, those of strong uses as `strong`, and `latents`, a row for each pair;
    `runs.latent_comparisons` says what each is called. Where one of the runs has no scores nothing
    tells strong uses: `strong` is None then, and a note says so. Raises InputError for one run
    given twice or no prompt that both can be compared on, ComparisonError where no source or fewer
    than 20 tokens are common, RunError where scores can't be read.
    """
    if a.directory.resolve() == b.directory.resolve():
        raise InputError("Give two different runs: a run's latents are the same as its own.")
    dictionaries = {side: run.dictionary() for side, run in (("a", a), ("b", b))}
    pairs = namesakes(dictionaries["a"], dictionaries["b"], common_numbers(a, b, dictionaries))
    thresholds = [thresholds_of(run) for run in (a, b)]
    progress = Progress("reading", total_tokens=max_tokens, notes=_without_scores(a, b, thresholds))
    yield progress
    prompts = unseen_prompts(a, b, corpus)
    coding = _Coding({"a": a, "b": b}, dictionaries, prompts, max_tokens, device, memory)
    yield from coding.steps(progress)
    progress.stage, progress.run_id = "comparing", ""
    yield progress
    of_both = coding.found["a"], coding.found["b"], pairs, max_tokens, seed, thresholds
    settings = {"max_tokens": max_tokens, "corpus": None if corpus is None else asdict(corpus)}
    about = _about(a, b, dictionaries, corpus, seed) | {"settings": settings}
    progress.results = [about | in_common(*of_both)]
    progress.finish()
    yield progress


def _without_scores(a: Run, b: Run, thresholds: Sequence[np.ndarray | None]) -> list[str]:
    runs = zip((a, b), thresholds, strict=True)
    return [
        f"All uses count, filler too: {run.run_id} has no scores that tell its strong uses. Score "
        f"it and compare again: python -m itda_core score {run.run_id}"
        for run, found in runs
        if found is None
    ]


def common_numbers(
    a: Run, b: Run, dictionaries: Mapping[str, Dictionary]
) -> tuple[np.ndarray, np.ndarray] | None:
    """What the latents of both are called in the run that they were chosen in, where it is one."""
    root_a, numbers_a = _root(a, dictionaries["a"])
    root_b, numbers_b = _root(b, dictionaries["b"])
    return (numbers_a, numbers_b) if root_a == root_b else None


def _root(run: Run, dictionary: Dictionary) -> tuple[tuple[str, str], np.ndarray]:
    """The run whose training chose a run's sources, with the digest of its dictionary, since it may
    have been trained anew under its id; and the numbers of its latents there."""
    origin = run.config.moved_from
    root = dictionary.digest if origin is None else origin.first.digest
    return (run.root, root), dictionary.latents_in_origin()


def _about(
    a: Run, b: Run, dictionaries: Mapping[str, Dictionary], corpus: CorpusSpec | None, seed: int
) -> dict[str, Any]:
    """What is compared."""
    runs = {"a": a, "b": b}
    return {
        **{f"run_{side}": run.run_id for side, run in runs.items()},
        **{f"created_{side}": run.about["created"] for side, run in runs.items()},
        **{f"digest_{side}": one.digest for side, one in dictionaries.items()},
        "corpus": (corpus or a.config.corpus).name,
        "held_out": corpus is None,
        "seed": seed,
    }


def most_changed(
    latents: Sequence[dict[str, Any]], count: int = 10, of_strong: bool = False
) -> list[dict[str, Any]]:
    """The rows whose correlation is surely small: by where its 95 % interval ends, which for a few
    uses is far up, of latents that one of the two uses on at least MIN_USES tokens. The interval is
    Fisher's (1921), over the tokens that either uses. of_strong: by strong uses, of which
    MIN_STRONG_USES do."""
    prefix, min_uses = (STRONG, MIN_STRONG_USES) if of_strong else ("", MIN_USES)

    def ends(row: dict[str, Any]) -> tuple[float, float, int]:
        correlation = row[f"{prefix}correlation"]
        a, b, both = (row[f"{prefix}uses_{name}"] for name in ("a", "b", "both"))
        z, either = math.atanh(max(-0.999999, min(0.999999, correlation))), a + b - both
        half = 1.96 / math.sqrt(either - 3) if either > 3 else 99
        return z + half, correlation, row["latent_a"]

    kept = [
        row
        for row in latents
        if row[f"{prefix}correlation"] is not None
        and max(row[f"{prefix}uses_{side}"] for side in "ab") >= min_uses
    ]
    return sorted(kept, key=ends)[:count]


def unseen_prompts(a: Run, b: Run, corpus: CorpusSpec | None = None) -> list[Prompt]:
    """The prompts that were held out of A's training and that B's has not read, or those of
    another corpus that neither has read. Raises InputError where there is none."""
    prompts = held_out_prompts(a) if corpus is None else load_corpus(corpus).prompts
    known = _read_by(b) if corpus is None else _read_by(a) | _read_by(b)
    unseen = [prompt for prompt in prompts if prompt.prompt_id not in known]
    if not unseen and corpus is None:
        raise InputError(
            f"{b.run_id} was trained on every prompt that {a.run_id} has held out. Give others "
            "with --corpus."
        )
    if not unseen:
        raise InputError(
            f"{a.run_id} or {b.run_id} was trained on every prompt of {corpus.name}. Give others "
            "with --corpus."
        )
    return unseen


def _read_by(run: Run) -> set[str]:
    """Of a moved run also what the run it is from was chosen from."""
    file = run.directory / "prompts.parquet"
    return {
        *read_frame(file, columns=["prompt_id"])["prompt_id"],
        *run.dictionary().prompt_ids,
    }


class _Coding:
    """The same texts through the models of both runs, each encoded by its dictionary."""

    def __init__(
        self,
        runs: Mapping[str, Run],
        dictionaries: Mapping[str, Dictionary],
        prompts: Sequence[Prompt],
        max_tokens: int,
        device: str | None,
        memory: int | None,
    ):
        self.found: dict[str, Coded] = {}
        """By side, "a" and "b" """
        self._runs, self._dictionaries = runs, dictionaries
        self._texts = [prompt.text for prompt in prompts]
        self._max_tokens, self._started = max_tokens, time.monotonic()
        self._load = functools.partial(load_model, device=device, memory=memory)
        self._loaded: tuple[ModelSpec, Model] | None = None

    def steps(self, progress: Progress) -> Iterator[Progress]:
        passes = _passes(self._runs)
        for number, sides in enumerate(passes):
            first = self._runs[sides[0]]
            progress.stage, progress.run_id, progress.tokens = "loading", first.run_id, 0
            yield progress
            for tokens, fraction in self._pass(sides):
                progress.stage, progress.tokens = "encoding", tokens
                seconds = time.monotonic() - self._started
                done = (number + fraction) / len(passes)
                progress.follow(max(done, 1e-6) * _READING, 0.0, 1.0, seconds)
                yield progress
        self._loaded = None

    def _pass(self, sides: Sequence[str]) -> Iterator[tuple[int, float]]:
        """How many tokens are read, and how far it is, in [0, 1]. Nothing but this holds the model,
        so that it is let go of before the next one is loaded."""
        first = self._runs[sides[0]]
        model = self._model(first.config.model).at(first.site)
        for side in sides:
            check_model(self._runs[side], model)
        about = self._texts, first.config.context_length, self._max_tokens
        read = ComparedTexts.of(model, *about)
        for fraction in self._encode(model, read, sides):
            yield round(fraction * min(len(read.names), self._max_tokens)), fraction

    def _model(self, spec: ModelSpec) -> Model:
        """The one that is loaded, or else another in its place: two at once may have no room."""
        if self._loaded is None or self._loaded[0] != spec:
            self._loaded = None
            gc.collect()
            self._loaded = spec, self._load(spec)
        return self._loaded[1]

    def _encode(self, model: Model, read: ComparedTexts, sides: Sequence[str]) -> Iterator[float]:
        """How far it is, in [0, 1]."""
        encoders = {side: _Encoder(self._dictionaries[side].to(model.device)) for side in sides}
        layers = sorted({self._runs[side].layer for side in sides})
        for step in model.capture_each(read.batches, layers):
            rows = read.compared(step)
            for side in sides:
                if (layer := self._runs[side].layer) in rows:
                    encoders[side].take(to_device(rows[layer], model.device))
            yield step.fraction
        for side, encoder in encoders.items():
            coded = encoder.coefficients(), encoder.massive()
            self.found[side] = Coded(read.names, *coded, model.tokenizer_digest)


class _Encoder:
    """One dictionary, and the codes of what it has been given."""

    def __init__(self, dictionary: Dictionary):
        self._dictionary, self._gram = dictionary, dictionary.gram()
        self._codes: list[csc_array] = []
        self._norms: list[torch.Tensor] = []

    def take(self, x: torch.Tensor) -> None:
        """x: [n_tokens, d_model], on the dictionary's device. Rows that are not finite use no
        latent, and are left out as massive ones are."""
        norms = x.norm(dim=1)
        is_finite = torch.isfinite(norms)[:, None]
        codes = self._dictionary.encode(torch.where(is_finite, x, 0.0), gram=self._gram)
        self._codes.append(coefficient_matrix(codes, len(self._dictionary)))
        self._norms.append(norms.cpu())

    def coefficients(self) -> csc_array:
        return vstack(self._codes, format="csc")

    def massive(self) -> np.ndarray:
        norms = torch.cat(self._norms)
        is_finite = torch.isfinite(norms)
        return (massive(norms, float(norms[is_finite].nanmedian())) | ~is_finite).numpy()


def _passes(runs: Mapping[str, Run]) -> list[tuple[str, ...]]:
    """Sides whose activations are read together: those of one model and site."""
    a, b = (
        (run.config.model, run.site, run.config.context_length, run.about.get("model_digest"))
        for run in (runs["a"], runs["b"])
    )
    return [("a", "b")] if a == b else [("a",), ("b",)]
