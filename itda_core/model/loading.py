"""From a model's name to the model: built-in, on the hub, or in a local folder."""

import functools
import math
import os
import time
from pathlib import Path
from typing import Any

import torch

from itda_core.config import ModelSpec
from itda_core.devices import best_device, device_or_best, kind_of, numbered, working_on
from itda_core.digests import digest, sample_of
from itda_core.errors import ModelError, WeightsGone
from itda_core.memory import size_in_words, usable_memory
from itda_core.model.abilities import Abilities
from itda_core.model.built_in import (
    BUILT_IN,
    DIGEST_PREFIX,
    ModelShape,
    built_in_folder,
    is_installed,
    quieten,
    unpacked_folder,
)
from itda_core.model.known_types import known_type
from itda_core.model.model import Model
from itda_core.model.plausible import check_counts, check_folder
from itda_core.model.pretrained import (
    ENCODER,
    first_line,
    from_pretrained,
    is_of_the_machine,
    no_room,
    of_two_parts,
    without_part,
    without_weights,
)
from itda_core.model.process_lock import alone
from itda_core.model.proved import Identity, proved, proved_swept, remembered
from itda_core.model.proved import remembered_sites as sites_before
from itda_core.model.sites import Sites
from itda_core.model.sizes import (
    ModelParts,
    likely_parts,
    stored_parts,
    swept_bytes,
    too_little_for,
)
from itda_core.model.weight_files import StoredTensor, stored_tensors

_PROBE_SHAPE = (512, 1_024, 1_024)
"""A product of an MLP's size, some milliseconds."""
_SMALL_SHAPE = (32, 1_024, 1_024)
"""What is tried before, since the other takes seconds where bfloat16 is only imitated."""
_WORTH_IT = 1.3
"""A gain in speed for which rounding to eight bits is accepted."""
_IMITATED = 10.0
"""How much slower bfloat16 is, at its best of three times, where no noise can be the reason."""


@alone
def load_model(
    name: str | ModelSpec,
    dtype: str | None = None,
    device: str | None = None,
    memory: int | None = None,
) -> Model:
    """A built-in model, one from the hub, or one in a local folder, ready to capture from.

    dtype: "float32", "bfloat16", "float16" or "auto" (bfloat16 where the device computes faster in
    it, else float32); by default that of a ModelSpec, and float32 for a name. device: "cuda",
    "cuda:1", "mps" or "cpu", by default the setting ITDA_DEVICE, else the first of these kinds that
    there is; InputError for one that is not there. memory: bytes of the device's that may be used,
    by default the setting ITDA_MEMORY, else what is free; a model that takes more is not loaded but
    read block by block, all texts of a call together (see swept.py).
    NAME:encoder is the encoder of a model that has an encoder and a decoder. Only safetensors
    weights are read, and code that comes with a model is never run. The model has proved that
    its activations are right (see proof.py). Raises ModelError with the remedy.
    """
    spec = name if isinstance(name, ModelSpec) else ModelSpec(name, dtype="float32")
    device = device_or_best(device)
    model = _as_fits(spec, resolved_dtype(dtype or spec.dtype, device), device, memory)
    model.abilities.require(spec.name, "capture")
    return model


def _as_fits(spec: ModelSpec, weights: torch.dtype, device: str, memory: int | None) -> Model:
    """Loaded as a whole, or read block by block where that takes more memory than may be used."""
    quieten()  # before the hub is asked: its client tells every try
    source = _resolve(spec)
    room = usable_memory(torch.device(numbered(device)), memory)
    if _fits(spec, source, weights, room):
        return _loaded(spec, source, weights, device)
    return _swept(spec, source, weights, device, room)


def _fits(spec: ModelSpec, source: str, dtype: torch.dtype, memory: int) -> bool:
    """Whether the weights of a model take at most `memory` bytes. Where they can't be found out,
    loading it says why."""
    try:
        stored = stored_tensors(source, spec.revision)
    except Exception:  # whatever the hub's client or a damaged file raises
        return True
    return _bytes_as(stored, dtype) <= memory


def _bytes_as(stored: dict[str, StoredTensor], dtype: torch.dtype) -> int:
    return sum(tensor.bytes_as(dtype) for tensor in stored.values())


def _swept(spec: ModelSpec, source: str, weights: torch.dtype, device: str, memory: int) -> Model:
    stored = stored_tensors(source, spec.revision)
    if (needed := _swept_bytes(spec, stored, weights) or 0) > memory:  # before anything is built
        raise ModelError(too_little_for(spec.name, needed, memory))
    try:
        module, tokenizer, found = without_weights(spec, source, weights)
        _check_fast(spec, tokenizer)
        identity = _identity(spec, source, module.config, weights, device)
        there = torch.device(numbered(device))
        with working_on(there):
            return proved_swept(identity, module, found, tokenizer, there, memory)
    except WeightsGone:
        raise
    except ModelError as error:
        if spec.name in str(error):
            raise
        raise ModelError(
            f"{spec.name} takes more than the {size_in_words(memory)} of memory that may be used, "
            f"and can't be read block by block: {error}"
        ) from error


@alone
def try_model(spec: ModelSpec, device: str | None = None, memory: int | None = None) -> Model:
    """The model with what it does right, also where its activations can't be read and `load_model`
    refuses it; device, memory: as there. Raises ModelError where there is nothing to try."""
    device = device_or_best(device)
    return _as_fits(spec, resolved_dtype(spec.dtype, device), device, memory)


def _check_fast(spec: ModelSpec, tokenizer) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"The tokenizer of {spec.name} gives no character spans (not a fast one).")


def _loaded(spec: ModelSpec, source: str, weights: torch.dtype, device: str) -> Model:
    module, tokenizer = from_pretrained(spec, source, weights)
    _check_fast(spec, tokenizer)
    identity = _identity(spec, source, module.config, weights, device)
    there = torch.device(numbered(device))  # "cuda" alone would be the thread's own
    try:
        with working_on(there):
            return proved(identity, module.to(there), tokenizer)
    except ModelError:
        raise
    except Exception as error:  # no language model at all, or no room for it
        reason = f"{spec.name} can't be used: {first_line(error)}"
        raise ModelError(
            no_room(spec.name, error) if is_of_the_machine(error) else reason
        ) from error


def remembered_abilities(spec: ModelSpec, device: str | None = None) -> Abilities | None:
    """What was proved of a model when it was loaded before on this kind of device (by default the
    one that is used by itself), or goes without saying; None where nothing is known. Nothing is
    loaded, and the network is not asked."""
    try:
        config = _local_config(spec)
        identity = _local_identity(spec, config, device or best_device())
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
        return sites_before(_local_identity(spec, _local_config(spec), device), by_block)
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
    _resolve(spec, unpack=False)


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
        return stored_tensors(_resolve(spec, unpack=False), spec.revision, is_local=True)
    except Exception:  # not a folder, not in the cache, damaged
        return None


def weights_folder(spec: ModelSpec) -> Path | None:
    """Where the files of a model lie on this machine; None where they do not, or are not unpacked
    yet."""
    from huggingface_hub import try_to_load_from_cache

    if (name := without_part(spec.name)) in BUILT_IN:
        return unpacked_folder(name)
    try:
        source = _resolve(spec, unpack=False)
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
        return _bytes_as(stored, dtype) > room
    parts = model_parts(spec)
    return None if parts is None else dtype.itemsize * parts.total > room


def swept_memory(spec: ModelSpec, dtype: torch.dtype) -> int | None:
    """Bytes of memory that a model takes at least, where it is read block by block; None where its
    files are not here, or do not tell."""
    stored = _stored_here(spec)
    return stored and _swept_bytes(spec, stored, dtype)


def _swept_bytes(
    spec: ModelSpec, stored: dict[str, StoredTensor], dtype: torch.dtype
) -> int | None:
    """None of an encoder of two parts, whose weights are not told from the decoder's by name."""
    return None if spec.name.endswith(ENCODER) else swept_bytes(stored, dtype)


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


def resolved_dtype(dtype: str, device: str) -> torch.dtype:
    """What a setting such as "auto" comes to on a device."""
    if dtype == "auto":
        return torch.bfloat16 if _is_bfloat16_faster(device) else torch.float32
    return getattr(torch, dtype)


@functools.cache
def _is_bfloat16_faster(device: str) -> bool:
    """By a short probe: some processors have bfloat16 instructions, and some only imitate them or
    have none. An NVIDIA GPU has them from compute capability 8 on."""
    if kind_of(device) == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        seconds = _product_seconds(device)
    except (RuntimeError, TypeError):  # no such type there
        return False
    return seconds[torch.float32] > _WORTH_IT * seconds[torch.bfloat16]


def _product_seconds(device: str) -> dict[torch.dtype, float]:
    """How long a product takes in each type: a small one where that is enough to know."""
    seconds = _best_seconds(device, _SMALL_SHAPE, draws=3)
    if seconds[torch.bfloat16] > _IMITATED * seconds[torch.float32]:
        return seconds
    return _best_seconds(device, _PROBE_SHAPE, draws=5)


def _best_seconds(device: str, shape: tuple[int, int, int], draws: int) -> dict[torch.dtype, float]:
    """The shortest time of a product in each type, the types in turn. shape: its rows, what is
    summed over, its columns."""
    a, b = (
        torch.ones(shape[:2], dtype=torch.float32, device=device),
        torch.ones(shape[1:], dtype=torch.float32, device=device),
    )
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(draws):
        for kind in seconds:
            x, y = a.to(kind), b.to(kind)
            started = time.perf_counter()
            float((x @ y)[0, 0])  # reading a value waits for the device
            seconds[kind] = min(seconds[kind], time.perf_counter() - started)
    return seconds


def _resolve(spec: ModelSpec, unpack: bool = True) -> str:
    """A folder with config.json and safetensors, or a hub id. unpack: make the folder of a built-in
    model where it is not there yet."""
    name = without_part(spec.name)
    if name in BUILT_IN:
        return str(built_in_folder(name)) if unpack else name
    # pathlib's own tests raise for names that no folder can have, such as very long ones.
    path = Path(os.path.expanduser(name))  # noqa: PTH111
    if os.path.isdir(path):  # noqa: PTH112
        if not (path / "config.json").exists():
            raise ModelError(f"The folder {path} holds no model: it has no config.json.")
        check_folder(path)
        if not any(path.glob("*.safetensors")):
            raise ModelError(
                f"The folder {path} has no safetensors weights. Other formats can run code when "
                "they are read; convert it with save_pretrained first."
            )
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or os.path.exists(path):  # noqa: PTH110
        raise ModelError(f"There is no model folder {path}. Check the path.")
    return name


def _identity(spec: ModelSpec, source: str, config, dtype: torch.dtype, device: str) -> Identity:
    return Identity(spec.name, _digest(spec, source, config), str(dtype), kind_of(device))


def model_digest(spec: ModelSpec, config) -> str:
    """The digest of a model that another program has loaded. config: transformers' own."""
    return _digest(spec, _resolve(spec, unpack=False), config)


def _local_identity(spec: ModelSpec, config, device: str) -> Identity:
    """Of a model here, as it would be loaded. Raises ModelError where it is not here."""
    source = _resolve(spec, unpack=False)
    return _identity(spec, source, config, resolved_dtype(spec.dtype, device), device)


def _digest(spec: ModelSpec, source: str, config) -> str:
    """Names a model's content: package version, hub commit, or a sample of the local files."""
    if without_part(spec.name) in BUILT_IN:
        return f"{DIGEST_PREFIX}{BUILT_IN[without_part(spec.name)].version}"
    if not Path(source).is_dir():
        return getattr(config, "_commit_hash", None) or (spec.revision or "")
    files = [*Path(source).glob("*.json"), *Path(source).glob("*.safetensors")]
    return digest(sample_of(sorted(files)))
