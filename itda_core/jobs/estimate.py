"""How long a training will take and how much room it needs, before it starts."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from itda_core.activations.folder_index import read_index
from itda_core.activations.pool import sample_size
from itda_core.config import TrainConfig
from itda_core.corpus.reading import TEXT_ENDINGS
from itda_core.devices import best_device, free_memory, kind_of
from itda_core.jobs.device_memory import DeviceMemory, device_memory
from itda_core.jobs.operations import START_SECONDS, Speed, pursuit_operations
from itda_core.jobs.sweep_cost import SweepCost, reading_speed, sweep_cost
from itda_core.model.built_in import ModelShape
from itda_core.model.data_types import resolved_dtype
from itda_core.model.model_info import (
    is_swept,
    model_parts,
    model_shape,
    swept_memory,
    weights_folder,
)
from itda_core.pursuit.gram import gram_bytes
from itda_core.runs.run import Run
from itda_core.selection.coverage import CANDIDATES_PER_ATOM, COMPONENTS, JUDGES, ROUNDS
from itda_core.settings import MOVED
from itda_core.training.moving import tokens_read

_BYTES_PER_CODE = 8
_BYTES_PER_PLANNED_TOKEN = 22
"""Of texts, ids and spans that a plan keeps; measured on the built-in corpus."""
_BYTES_PER_TOKEN = 3.0
"""Of text that makes a token: English has four to five, the first tokens of prompts included"""
_BYTES_OF_CORPORA = {"sotu": 9_640_000}

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
    # Every atom is a token, so there are as many; whether there are is for the training to say.
    likely = max(config.max_atoms, _likely_tokens(config))
    config = replace(config, max_tokens=min(config.max_tokens, likely))
    device, disk = device or best_device(), _disk(config, shape)
    speed = Speed(device)
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
    found: Estimate, config: TrainConfig, shape: ModelShape, speed: "Speed", dtype: torch.dtype
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


def _seconds(config: TrainConfig, shape: ModelShape, speed: Speed) -> float:
    """Forward passes to the last layer; for each layer the selection, and one pursuit for each
    explored token."""
    blocks = 0 if config.activations else max(config.layers) + 1
    forward = 2 * shape.block_weights * blocks * config.max_tokens
    explored = min(config.explored_tokens, config.max_tokens)
    pursuit = pursuit_operations(
        explored, config.max_atoms, shape.d_model, config.max_terms, config.pursuit
    )
    per_layer = pursuit + _selection_operations(config, shape.d_model, pursuit)
    layers = len(config.layers) * per_layer / speed.product
    return START_SECONDS + forward / speed.forward(config) + layers


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
    judging = pursuit_operations(min(JUDGES, sample), centres, d_model, config.l0, "orthogonal")
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
