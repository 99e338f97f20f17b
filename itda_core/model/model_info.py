"""What is known of a model that is not loaded: shape, size, place, what it was proved to do.

Configurations and headers are read, never weights, and the network is not asked.
"""

import functools
import os
from pathlib import Path
from typing import Any

import torch

from itda_core.config import ModelSpec
from itda_core.devices import best_device, numbered
from itda_core.errors import ModelError
from itda_core.memory import usable_memory
from itda_core.model.abilities import Abilities
from itda_core.model.built_in import BUILT_IN, ModelShape, is_installed, unpacked_folder
from itda_core.model.data_types import resolved_dtype
from itda_core.model.known_types import known_type
from itda_core.model.model_files import local_identity, resolve
from itda_core.model.plausible import check_counts, check_folder
from itda_core.model.pretrained import ENCODER, of_two_parts, without_part
from itda_core.model.process_lock import alone
from itda_core.model.proved import remembered
from itda_core.model.proved import remembered_sites as sites_before
from itda_core.model.sites import Sites
from itda_core.model.sizes import ModelParts, likely_parts, stored_parts, swept_bytes
from itda_core.model.weight_files import StoredTensor, stored_tensors


def remembered_abilities(spec: ModelSpec, device: str | None = None) -> Abilities | None:
    """What was proved of a model when it was loaded before on this kind of device (by default the
    one that is used by itself), or goes without saying; None where nothing is known. Nothing is
    loaded, and the network is not asked."""
    try:
        config = _local_config(spec)
        identity = local_identity(spec, config, device or best_device())
    except ModelError:
        return None
    if config is not None and (refusal := of_two_parts(spec.name, config)):
        return Abilities.none("capture", refusal)
    return remembered(identity)


def remembered_sites(
    spec: ModelSpec, device: str | None = None, memory: int | None = None
) -> Sites | None:
    """The same of the sites of its blocks, which are proved when one is first asked for. memory: as
    `load_model` takes it: a model that will be read block by block proves them in another way."""
    device = device or best_device()
    by_block = bool(is_swept(spec, resolved_dtype(spec.dtype, device), device, memory))
    try:
        return sites_before(local_identity(spec, _local_config(spec), device), by_block)
    except ModelError:
        return None


def type_abilities(spec: ModelSpec) -> Abilities | None:
    """What was proved of a tiny model of the same type; None for a type that was not tried, or a
    model that is not here."""
    if built_in := BUILT_IN.get(without_part(spec.name)):
        return known_type(built_in.architecture)
    try:
        [kind, *_] = _local_config(spec).architectures or [""]
    except (ModelError, TypeError):
        return None
    return known_type(f"{kind}{ENCODER}" if spec.name.endswith(ENCODER) else str(kind))


def check_is_there(spec: ModelSpec) -> None:
    """Raises ModelError for a local folder that is not there or holds no model. Of the hub nothing
    is asked."""
    resolve(spec, unpack=False)


def model_shape(spec: ModelSpec) -> ModelShape | None:
    """The shape of a built-in model, a local folder or a model in the hub's cache; else None.

    Only a configuration is read, never weights, and the network is not asked.
    """
    name = without_part(spec.name)
    if name in BUILT_IN:
        return BUILT_IN[name].shape
    try:
        config = _local_config(spec).get_text_config()
        width = int(config.hidden_size)
        intermediate = int(getattr(config, "intermediate_size", None) or 4 * width)
        return ModelShape(_n_layers(config), width, intermediate, config.vocab_size)
    except (ModelError, AttributeError, TypeError, ValueError):
        return None


def _n_layers(config: Any) -> int:
    """Of the part that is loaded: families with an encoder call its blocks the model's, also where
    a checkpoint is the decoder alone."""
    is_decoder = any(name.endswith("ForCausalLM") for name in config.architectures or ())
    layers = getattr(config, "decoder_layers", None) if is_decoder else None
    return int(layers or config.num_hidden_layers)


def model_parts(spec: ModelSpec) -> ModelParts | None:
    """How large the parts of a model are, by its files where they are here, else guessed from its
    configuration; None where not even that is here. Nothing is loaded, and the network is not
    asked."""
    stored, shape = _stored_here(spec), model_shape(spec)
    found = stored and stored_parts(stored)
    return found or (None if shape is None else likely_parts(shape))


def _stored_here(spec: ModelSpec) -> dict[str, StoredTensor] | None:
    try:
        return stored_tensors(resolve(spec, unpack=False), spec.revision, is_local=True)
    except Exception:  # not a folder, not in the cache, damaged
        return None


def weights_folder(spec: ModelSpec) -> Path | None:
    """Where the files of a model lie on this machine; None where they do not, or are not unpacked
    yet."""
    from huggingface_hub import try_to_load_from_cache

    if (name := without_part(spec.name)) in BUILT_IN:
        return unpacked_folder(name)
    try:
        source = resolve(spec, unpack=False)
        if os.path.isdir(source):  # noqa: PTH112
            return Path(source)
        config = try_to_load_from_cache(source, "config.json", revision=spec.revision)
    except Exception:  # whatever a name is that no model can have
        return None
    return Path(config).parent if isinstance(config, str) else None


def is_swept(
    spec: ModelSpec, dtype: torch.dtype, device: str, memory: int | None = None
) -> bool | None:
    """Whether `load_model` will read a model block by block: by its files where they are here, else
    by a guess from its configuration; None where not even that is here. memory: as there."""
    room = usable_memory(torch.device(numbered(device)), memory)
    if stored := _stored_here(spec):
        return bytes_as(stored, dtype) > room
    parts = model_parts(spec)
    return None if parts is None else dtype.itemsize * parts.total > room


def swept_memory(spec: ModelSpec, dtype: torch.dtype) -> int | None:
    """Bytes of memory that a model takes at least, where it is read block by block; None where its
    files are not here, or do not tell."""
    stored = _stored_here(spec)
    return stored and least_bytes(spec, stored, dtype)


def least_bytes(spec: ModelSpec, stored: dict[str, StoredTensor], dtype: torch.dtype) -> int | None:
    """None of an encoder of two parts, whose weights are not told from the decoder's by name."""
    return None if spec.name.endswith(ENCODER) else swept_bytes(stored, dtype)


def bytes_as(stored: dict[str, StoredTensor], dtype: torch.dtype) -> int:
    return sum(tensor.bytes_as(dtype) for tensor in stored.values())


def _local_config(spec: ModelSpec):
    """transformers' configuration of a model here; None for a built-in one. Raises ModelError for
    one that can't be read."""
    name = without_part(spec.name)
    if name in BUILT_IN:
        return None
    options = {"revision": spec.revision, "local_files_only": True, "trust_remote_code": False}
    if os.path.isdir(name):  # noqa: PTH112
        check_folder(Path(name))
    try:
        config = _auto_config().from_pretrained(name, **options)
    except Exception as error:  # whatever is wrong with a file that somebody wrote
        raise ModelError(f"{name} has no configuration that can be read.") from error
    check_counts(name, config.to_dict())
    return config


@functools.cache
@alone
def _auto_config():
    """transformers' AutoConfig. The lock is held for the first import alone: who looks at a model's
    configuration need not wait for another session that loads one."""
    from transformers import AutoConfig

    return AutoConfig


def known_models() -> list[dict[str, str]]:
    """The built-in models and those in the hub's cache here: name, where, description."""
    models = [
        {
            "model": name,
            "where": "built in" if is_installed(name) else "not installed",
            "description": f"{built_in.title}, {built_in.shape.n_layers} layers, "
            f"d_model {built_in.shape.d_model}",
        }
        for name, built_in in BUILT_IN.items()
    ]
    return models + [
        {"model": name, "where": "hub cache", "description": ""} for name in _cached_models()
    ]


def _cached_models() -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(
        repository.repo_id for repository in repositories if repository.repo_type == "model"
    )
