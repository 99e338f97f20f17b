"""How long a training or an evaluation will take and how much room it needs, before it starts."""

import functools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from itda_core.activations.folder_index import read_index
from itda_core.activations.pool import sample_size
from itda_core.config import TrainConfig
from itda_core.corpus.reading import TEXT_ENDINGS
from itda_core.devices import best_device, free_memory, is_out_of_memory, kind_of
from itda_core.errors import InputError
from itda_core.evaluation.by_l0 import EVALUATION_TOKENS, QUICK_TOKENS, nested_l0s, quick_l0s
from itda_core.evaluation.cost import blocks_run
from itda_core.jobs.device_memory import DeviceMemory, device_memory
from itda_core.jobs.sweep_cost import SweepCost, reading_speed, sweep_cost
from itda_core.model.loading import (
    ModelShape,
    is_swept,
    model_parts,
    model_shape,
    resolved_dtype,
    swept_memory,
    weights_folder,
)
from itda_core.pursuit.gram import gram_bytes
from itda_core.runs.run import Run
from itda_core.selection.coverage import CANDIDATES_PER_ATOM, COMPONENTS, JUDGES, ROUNDS
from itda_core.settings import MOVED, RESID_POST
from itda_core.similarity.same_latents import COMPARED_TOKENS
from itda_core.training.moving import tokens_read

_PROBE_SIZE = 1_024
_GPU_PROBE_SIZE = 4_096
"""Enough to keep a GPU busy: some milliseconds there"""
_SMALLEST_PROBE = 64
_FORWARD_EFFICIENCY = 0.45
"""Share of a plain product's speed that a transformer's forward pass reaches."""
_BFLOAT16_GAIN = 2.0
"""How much faster a forward pass is in bfloat16 on a CPU, where that is taken; 2 to 4 were seen."""
_PURSUIT_FLOPS_SHARE = 0.15
"""Share of a plain product's speed that a pursuit's row updates reach."""
_LOSS_COST = 2.0
"""Logits, their cross-entropy and KL, in units of the product that makes the logits."""
_PURSUIT_COSTS = {"matching": 1.0, "refit": 3.3, "orthogonal": 3.7}
"""Time of a pursuit against plain matching pursuit's, with 2,048 atoms and L0 32."""
START_SECONDS = 12.0
"""Starting the process, importing, loading the model."""
_BYTES_PER_CODE = 8
_LABELLED_TOKENS = 137_000
"""Of the held-out prompts of the built-in corpus, which probing reads."""
_BYTES_PER_PLANNED_TOKEN = 22
"""Of texts, ids and spans that a plan keeps; measured on the built-in corpus."""
_BYTES_PER_TOKEN = 3.0
"""Of text that makes a token: English has four to five, the first tokens of prompts included"""
_BYTES_OF_CORPORA = {"sotu": 9_640_000}

_REGRESSIONS_SECONDS = 10.0
"""The regressions of a probing, on some thousand prompts and latents."""
_HELD_OUT_SHARE = 1.1
"""Tokens that go through the model for each that is chosen from: the first of each prompt, and
those of the held-out prompts"""


@dataclass(frozen=True)
class Estimate:
    """What a training will need; rough, a factor of two either way."""

    seconds: float
    memory: int
    """bytes in main memory at most"""
    disk: int
    """bytes on disk while it runs; about half of it is kept"""
    on_device: DeviceMemory | None = None
    """what a GPU has to hold; None on a CPU, where all is in main memory"""
    sweep: SweepCost | None = None
    """of a model that is read block by block; None of one that is loaded as a whole"""
    model_bytes: int = 0
    """of its weights"""


def estimate(
    config: TrainConfig, device: str | None = None, memory: int | None = None
) -> Estimate | None:
    """device: by default the one that computes where nothing is said; memory: bytes that the model
    may use, as `load_model` takes it. None where the model's shape is not known without loading
    it."""
    shape = _shape(config)
    if shape is None:
        return None
    config = replace(config, max_tokens=min(config.max_tokens, _likely_tokens(config)))
    device, disk = device or best_device(), _disk(config, shape)
    speed = _Speed(device)
    found = Estimate(_seconds(config, shape, speed), _memory(config, shape), disk)
    if kind_of(device) != "cpu":
        needed = device_memory(config, shape, device, _sample(config))
        found = replace(found, memory=_host_memory(config, shape), on_device=needed)
    if config.activations:  # no model is loaded
        return found
    dtype = resolved_dtype(config.model.dtype, device)
    found = replace(found, model_bytes=dtype.itemsize * model_parts(config.model).total)
    if is_swept(config.model, dtype, device, memory):
        return _swept(found, config, shape, speed, dtype)
    return found


def estimate_move(
    run: Run, config: TrainConfig, device: str | None = None, memory: int | None = None
) -> Estimate | None:
    """The same of a move of `run`: a pass over the explored tokens and over what else holds
    sources, and a pursuit for each explored token; nothing is chosen. config: of `move_config`."""
    return estimate(config.but(max_tokens=max(1, tokens_read(run))), device, memory)


def _swept(
    found: Estimate, config: TrainConfig, shape: ModelShape, speed: "_Speed", dtype: torch.dtype
) -> Estimate:
    """The estimate of a model that is loaded as one that is read block by block: its weights are
    not in memory together, one block is read while another computes, and hidden states lie on the
    disk."""
    parts, last = model_parts(config.model), max(config.layers)
    tokens = int(_HELD_OUT_SHARE * config.max_tokens)
    rate, is_measured = reading_speed(weights_folder(config.model))
    forward = speed.forward(config)
    cost = sweep_cost(parts, last, tokens, shape.d_model, dtype.itemsize, rate, forward)
    held = swept_memory(config.model, dtype) or cost.held  # as loading it counts
    cost = replace(cost, is_measured=is_measured, held=held)
    loaded = 2 * shape.block_weights * (last + 1) * config.max_tokens / forward
    on_device = found.on_device and replace(found.on_device, weights=cost.held)
    return replace(
        found,
        seconds=found.seconds - loaded + cost.seconds,
        memory=max(cost.held, found.memory - _weights(shape) + cost.held),
        disk=found.disk + cost.hidden_on_disk,
        on_device=on_device,
        sweep=cost,
    )


def _shape(config: TrainConfig) -> ModelShape | None:
    """Of the model that has to be loaded; of none where a folder has its activations."""
    if not config.activations:
        return model_shape(config.model)
    return ModelShape(0, read_index(Path(config.activations)).d_model, 0, 0)


def _likely_tokens(config: TrainConfig) -> int:
    """How many tokens the texts have, where that can be told without reading them: those of a
    folder, else at most about as many as their bytes make; else any number."""
    if config.activations:
        return read_index(Path(config.activations)).total_rows
    if config.corpus.name in _BYTES_OF_CORPORA:
        count = _BYTES_OF_CORPORA[config.corpus.name]
    else:
        count = _bytes_of_texts(config.corpus.name)
    return sys.maxsize if count is None else max(1, int(count / _BYTES_PER_TOKEN))


def _bytes_of_texts(name: str) -> int | None:
    """Of a file that is text as it lies there; None where it is another, or none."""
    # pathlib's own tests raise for names that no file can have, such as very long ones.
    path = os.path.expanduser(name)  # noqa: PTH111
    is_text = path.lower().endswith(TEXT_ENDINGS) and os.path.isfile(path)  # noqa: PTH113
    return os.path.getsize(path) if is_text else None  # noqa: PTH202


class _Speed:
    """Floating-point operations a second of a device."""

    def __init__(self, device: str):
        self._device = device
        self.product = _product_speed(device)
        """of a plain product in float32"""
        self._product = functools.cache(functools.partial(_product_speed, device))

    def forward(self, config: TrainConfig) -> float:
        """Of a forward pass, in the data type that it is made in."""
        if kind_of(self._device) == "cpu":
            return self.product * _FORWARD_EFFICIENCY * _gain(config, self._device)
        dtype = resolved_dtype(config.model.dtype, self._device)
        return _FORWARD_EFFICIENCY * self._product(dtype)


def _seconds(config: TrainConfig, shape: ModelShape, speed: _Speed) -> float:
    """Forward passes to the last layer; for each layer the selection, and one pursuit for each
    explored token."""
    blocks = 0 if config.activations else max(config.layers) + 1
    forward = 2 * shape.block_weights * blocks * config.max_tokens
    explored = min(config.explored_tokens, config.max_tokens)
    pursuit = _pursuit_operations(
        explored, config.max_atoms, shape.d_model, config.max_terms, config.pursuit
    )
    per_layer = pursuit + _selection_operations(config, shape.d_model, pursuit)
    layers = len(config.layers) * per_layer / speed.product
    return START_SECONDS + forward / speed.forward(config) + layers


def evaluation_seconds(
    dictionaries: Sequence[tuple[TrainConfig, int]],
    tokens: int = EVALUATION_TOKENS,
    device: str | None = None,
    quick: bool = False,
) -> float | None:
    """Seconds to evaluate dictionaries, each given by its training and its layer; device: as in
    `estimate`; quick: as in a quick run. None where a model's shape is not known without loading
    it."""
    device, is_read = device or best_device(), set()
    speed, seconds = _Speed(device), START_SECONDS
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
    `estimate`. None where the model's shape is not known without loading it."""
    shape = model_shape(config.model)
    if shape is None:
        return None
    speed = _Speed(device or best_device())
    forward = 2 * shape.block_weights * (layer + 1) * _LABELLED_TOKENS
    pursuit = _pursuit_operations(
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
    and its atoms; device: as in `estimate`. None where a model's shape is not known without loading
    it."""
    device, is_read = device or best_device(), set()
    speed, seconds = _Speed(device), START_SECONDS
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
        seconds += _pursuit_operations(*pursuit) / speed.product
    return seconds


def _gain(config: TrainConfig, device: str) -> float:
    """How much faster than in float32 a CPU's forward pass is with the data type it is made in."""
    chosen, fastest = (resolved_dtype(name, device) for name in (config.model.dtype, "auto"))
    gains = chosen is torch.bfloat16 and fastest is torch.bfloat16
    return _BFLOAT16_GAIN if gains else 1.0


def _pursuit_operations(
    tokens: int, atoms: int, d_model: int, terms: int, pursuit: str = "matching"
) -> float:
    """A pursuit's work, counted in operations of a plain product."""
    row = 2 * atoms * (d_model + terms / _PURSUIT_FLOPS_SHARE)
    return _PURSUIT_COSTS[pursuit] * row * tokens


def _selection_operations(config: TrainConfig, d_model: int, pursuit: float) -> float:
    """The threshold decomposes what it is given, about as much as is explored; the coverage
    finds its candidates by k-means and decomposes some activations with them."""
    if config.selection == "threshold":
        return pursuit
    if config.selection == MOVED:
        return 0.0
    sample, centres = _sample(config), CANDIDATES_PER_ATOM * config.max_atoms
    components = min(COMPONENTS, d_model)
    principal = 2 * sample * d_model * (d_model + components)
    nearest = 2 * ROUNDS * sample * centres * components
    judging = _pursuit_operations(min(JUDGES, sample), centres, d_model, config.l0, "orthogonal")
    return principal + nearest + judging


def _sample(config: TrainConfig) -> int:
    """Activations that the selection keeps on disk until it chooses, for each layer."""
    if config.selection == "threshold":
        return 0
    return min(sample_size(config.max_atoms), config.max_tokens)


def _memory(config: TrainConfig, shape: ModelShape) -> int:
    """Main memory where the CPU computes."""
    cpu = torch.device("cpu")  # above a quarter of the free memory there is no Gram matrix
    gram = min(gram_bytes(config.max_atoms, cpu), free_memory(cpu) // 4)
    # One layer is chosen at a time: its sample, centred, of unit length, and without the massive.
    choosing = 4 * 4 * _sample(config) * shape.d_model
    per_layer = gram + 8 * config.max_atoms * shape.d_model
    plan = _BYTES_PER_PLANNED_TOKEN * config.max_tokens
    return _weights(shape) + per_layer * len(config.layers) + choosing + plan + 2**30


def _weights(shape: ModelShape) -> int:
    """Bytes of a model's weights in main memory at most, in float32."""
    return 4 * (shape.block_weights * shape.n_layers + shape.vocabulary * shape.d_model)


def _host_memory(config: TrainConfig, shape: ModelShape) -> int:
    """Main memory where a GPU computes: the weights on their way, and what is written."""
    atoms = 8 * config.max_atoms * shape.d_model * len(config.layers)
    return _weights(shape) + atoms + _BYTES_PER_PLANNED_TOKEN * config.max_tokens + 2**30


def _disk(config: TrainConfig, shape: ModelShape) -> int:
    explored = min(config.explored_tokens, config.max_tokens)
    rows = 4 * (explored + _sample(config)) * shape.d_model
    per_layer = rows + 2 * explored * config.max_terms * _BYTES_PER_CODE
    return len(config.layers) * (per_layer + 8 * config.max_atoms * shape.d_model)


_DRAWS: dict[tuple[str, torch.dtype], list[tuple[float, float]]] = {}
"""By device and data type: when a product was timed, and what came out, oldest first"""
_DRAWS_KEPT = 15
_DRAWN_AFTER_SECONDS = 20.0
"""What a machine does beside makes one draw four times another: draws are collected, so that an
estimate neither jumps between two clicks nor holds to one bad moment"""


def _product_speed(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a plain product on a device: the median of the draws
    of the last minutes. Raises InputError where there is no room for one at all."""
    draws, now = _DRAWS.setdefault((device, dtype), []), time.monotonic()
    if not draws or now - draws[-1][0] > _DRAWN_AFTER_SECONDS:
        draws.append((now, _drawn_speed(device, dtype)))
        del draws[:-_DRAWS_KEPT]
    return median(speed for _, speed in draws)


def _drawn_speed(device: str, dtype: torch.dtype) -> float:
    """One draw; of a smaller product where the device's memory is nearly full."""
    size = _PROBE_SIZE if kind_of(device) == "cpu" else _GPU_PROBE_SIZE
    while True:
        try:
            return 2 * size**3 / _product_seconds(size, device, dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size <= _SMALLEST_PROBE:
                raise InputError(
                    f"The memory of {device} is full. End what fills it, or choose another device."
                ) from error
            size //= 2


def _product_seconds(size: int, device: str, dtype: torch.dtype) -> float:
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # reading a value waits for the device
        best = min(best, time.perf_counter() - started)
    return best
