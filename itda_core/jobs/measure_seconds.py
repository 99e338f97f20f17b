"""How long evaluations, probings and comparisons of latents will take, before they start."""

from collections.abc import Sequence

from itda_core.config import TrainConfig
from itda_core.devices import best_device
from itda_core.evaluation.by_l0 import EVALUATION_TOKENS, QUICK_TOKENS, nested_l0s, quick_l0s
from itda_core.evaluation.cost import blocks_run
from itda_core.jobs.operations import START_SECONDS, Speed, pursuit_operations
from itda_core.jobs.sweep_cost import reading_speed
from itda_core.model.data_types import resolved_dtype
from itda_core.model.model_info import is_swept, model_parts, model_shape, weights_folder
from itda_core.settings import RESID_POST
from itda_core.similarity.same_latents import COMPARED_TOKENS

_LOSS_COST = 2.0
"""Logits, their cross-entropy and KL, in units of the product that makes the logits."""
_LABELLED_TOKENS = 137_000
"""Of the held-out prompts of the built-in corpus, which probing reads."""
_REGRESSIONS_SECONDS = 10.0
"""The regressions of a probing, on some thousand prompts and latents."""


def evaluation_seconds(
    dictionaries: Sequence[tuple[TrainConfig, int]],
    tokens: int = EVALUATION_TOKENS,
    device: str | None = None,
    quick: bool = False,
) -> float | None:
    """Seconds to evaluate dictionaries, each given by its training and its layer; device: as in
    `estimate.estimate`; quick: as in a quick run. None where a model's shape is not known without
    loading it."""
    device, is_read = device or best_device(), set()
    speed, seconds = Speed(device), START_SECONDS
    l0s_of, tokens = (quick_l0s, min(tokens, QUICK_TOKENS)) if quick else (nested_l0s, tokens)
    for config, layer in dictionaries:
        shape = model_shape(config.model)
        if shape is None:
            return None
        passes = len(l0s_of(config.max_terms)) + 2  # as it is, and zeroed
        by_block = is_swept(config.model, resolved_dtype(config.model.dtype, device), device)
        after = blocks_run(config.site, layer, shape.n_layers, passes, bool(by_block))
        blocks = layer + 1 + after
        forward = 2 * shape.block_weights * blocks * tokens
        unembedding = 2 * shape.vocabulary * shape.d_model * passes * tokens
        computing = forward / speed.forward(config) + _LOSS_COST * unembedding / speed.product
        # Dictionaries of one layer and site are evaluated together where each evaluation reads the
        # model.
        place = config.model, layer, config.site
        reading = (
            _reading_seconds(config, layer, device) if by_block and place not in is_read else 0
        )
        is_read.add(place)
        seconds += max(computing, reading)
    return seconds


def _reading_seconds(config: TrainConfig, layer: int, device: str) -> float:
    """Of a model that is read block by block: up to the layer, and from where something is put in.
    That is after the layer's block, before it, or where it is put in within it, at the first one,
    with the embeddings again."""
    parts, dtype = model_parts(config.model), resolved_dtype(config.model.dtype, device)
    first = {RESID_POST: layer + 1, "resid_pre": layer}.get(config.site, 0)
    outside = (1 if first else 2) * parts.largest_outside
    numbers = sum(parts.blocks[: layer + 1]) + sum(parts.blocks[first:]) + outside
    rate, _ = reading_speed(weights_folder(config.model))
    return dtype.itemsize * numbers / rate


def _passing_seconds(config: TrainConfig, layer: int, device: str) -> float:
    """To read a model up to a layer block by block; 0 for one that is loaded."""
    dtype = resolved_dtype(config.model.dtype, device)
    if not is_swept(config.model, dtype, device):
        return 0.0
    parts = model_parts(config.model)
    rate, _ = reading_speed(weights_folder(config.model))
    return dtype.itemsize * (sum(parts.blocks[: layer + 1]) + parts.largest_outside) / rate


def probing_seconds(
    config: TrainConfig, layer: int, atoms: int, device: str | None = None
) -> float | None:
    """Seconds to probe a dictionary on the held-out prompts of the built-in corpus; device: as in
    `estimate.estimate`. None where the model's shape is not known without loading it."""
    shape = model_shape(config.model)
    if shape is None:
        return None
    speed = Speed(device or best_device())
    forward = 2 * shape.block_weights * (layer + 1) * _LABELLED_TOKENS
    pursuit = pursuit_operations(
        _LABELLED_TOKENS, atoms, shape.d_model, config.max_terms, config.pursuit
    )
    seconds = forward / speed.forward(config) + pursuit / speed.product
    return START_SECONDS + _REGRESSIONS_SECONDS + seconds


def latent_comparison_seconds(
    dictionaries: Sequence[tuple[TrainConfig, int, int]],
    tokens: int = COMPARED_TOKENS,
    device: str | None = None,
) -> float | None:
    """Seconds to compare the latents of two dictionaries, each given by its training, its layer
    and its atoms; device: as in `estimate.estimate`. None where a model's shape is not known
    without loading it."""
    device, is_read = device or best_device(), set()
    speed, seconds = Speed(device), START_SECONDS
    for config, _, atoms in dictionaries:
        shape = model_shape(config.model)
        if shape is None:
            return None
        last = max(one for other, one, _ in dictionaries if other.model == config.model)
        forward = 2 * shape.block_weights * (last + 1) * tokens / speed.forward(config)
        if (config.model, config.site) not in is_read:  # its layers are read together
            seconds += max(forward, _passing_seconds(config, last, device))
            is_read.add((config.model, config.site))
        pursuit = (tokens, atoms, shape.d_model, config.max_terms, config.pursuit)
        seconds += pursuit_operations(*pursuit) / speed.product
    return seconds
