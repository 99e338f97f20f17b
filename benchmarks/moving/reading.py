"""What a model makes of the prompts: the tokens that become atoms, and those that are judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from benchmarks.common.activations import use_cache
from benchmarks.common.captured import is_massive
from benchmarks.layer_matching.noise import noisy
from itda_core.activations.plan import Plan, make_plan
from itda_core.activations.source_places import SourcePlaces
from itda_core.activations.sources import sources_at, sources_of
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import Prompt, load_corpus
from itda_core.evaluation.splicing import SplicedPrompts
from itda_core.model.loading import load_model
from itda_core.model.model import Activations, Model
from itda_core.model.tokens import padded

_ALL = 2**40
"""More tokens than there are"""


@dataclass(frozen=True)
class Amounts:
    """How much is read."""

    training: int
    """Prompts whose tokens may become atoms, the first ones of the training prompts"""
    held_out: int
    """Held-out prompts whose tokens are reconstructed"""
    spliced: int
    """Tokens, the first of the held-out ones, whose reconstructions are put into the model"""


class Reading:
    """One model, and its activations at some layers on prompts that are the same for all models."""

    def __init__(self, name: str, layers: Sequence[int], amounts: Amounts, noise: float = 0.0):
        """noise: a share of each weight matrix's standard deviation, added to it."""
        use_cache()
        spec, corpus = ModelSpec(name, dtype="float32"), CorpusSpec("sotu")
        self.config = TrainConfig(spec, corpus, tuple(layers))
        self.amounts, self.layers, self.noise = amounts, tuple(layers), noise
        model = load_model(spec, device="cpu")
        self.model: Model = noisy(model, noise) if noise else model
        prompts = load_corpus(corpus)
        self._held_out_prompts = prompts.held_out()[: amounts.held_out]
        self.plan = self._plan(prompts.training(0)[: amounts.training])
        self.x = _captured(self.model, self.plan, self.layers)
        """By layer [n_tokens, d_model] float32 of the training prompts"""

    @property
    def texts(self) -> dict[str, str]:
        """The training prompts by id."""
        return {prompt.prompt_id: prompt.text for prompt in self.plan.prompts}

    @cached_property
    def held_out(self) -> dict[int, tuple[torch.Tensor, np.ndarray]]:
        """By layer [n_tokens, d_model] float32 of held-out prompts without massive activations, and
        the number of each token's prompt."""
        plan = self._plan(self._held_out_prompts)
        prompts, _ = plan.first_rows(plan.total_rows)
        usual = {}
        for layer, x in _captured(self.model, plan, self.layers).items():
            kept = ~is_massive(x)
            usual[layer] = x[kept], prompts[kept.numpy()]
        return usual

    def spliced(self, layer: int) -> SplicedPrompts | None:
        """Held-out prompts to put reconstructions into; None where the model predicts nothing."""
        if self.model.abilities.splicing:
            return None
        read = self._held_out_prompts, self.config, self.amounts.spliced
        return SplicedPrompts(self.model, layer, *read)

    def at_sources(
        self, places: SourcePlaces, latents: np.ndarray
    ) -> tuple[list[tuple], dict[int, torch.Tensor]]:
        """Of latents with a token here, (prompt_id, position, start, end, token, word) of each, and
        by layer their activations, [n, d_model]."""
        numbers = {prompt.prompt_id: number for number, prompt in enumerate(self.plan.prompts)}
        counts = self.plan.rows
        starts = np.cumsum(counts) - counts - self.plan.skip_first
        readings = [places.readings[number] for number in places.reading[latents]]
        prompts = np.array([numbers[reading.prompt_id] for reading in readings])
        is_further = np.array([reading.is_further for reading in readings])
        rows = np.where(is_further, 0, starts[prompts] + places.position[latents])
        sources, found = sources_at(self.plan, rows), {i: x[rows] for i, x in self.x.items()}
        for place in np.flatnonzero(is_further).tolist():
            source, activations = self._further(readings[place], places.position[latents[place]])
            sources[place] = source
            for layer, x in activations.items():
                found[layer][place] = x
        return sources, found

    def _further(self, reading, position: int) -> tuple[tuple, dict[int, torch.Tensor]]:
        """A source behind the tokens that are read of all prompts."""
        tokens = padded(self.model.tokenizer, [reading.text])
        found = self.model.capture(tokens, self.layers, self.plan.skip_first)
        row = int(position) - self.plan.skip_first
        prompt = Prompt(reading.prompt_id, reading.text.text)
        return sources_of(tokens, [prompt], found)[row], {i: x[row] for i, x in found.items()}

    def _plan(self, prompts: Sequence[Prompt]) -> Plan:
        return make_plan(self.model, prompts, self.config, _ALL)


def _captured(model: Model, plan: Plan, layers: Sequence[int]) -> dict[int, torch.Tensor]:
    parts: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    for first, last in plan.windows:
        found: Activations = model.capture(plan.tokens(first, last), layers)
        for layer, x in found.items():
            parts[layer].append(x)
    return {layer: torch.cat(some) for layer, some in parts.items()}
