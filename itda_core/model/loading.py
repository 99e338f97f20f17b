"""From a model's name to the model: built-in, on the hub, or in a local folder."""

import torch

from itda_core.config import ModelSpec
from itda_core.devices import device_or_best, numbered, working_on
from itda_core.errors import ModelError, WeightsGone
from itda_core.memory import size_in_words, usable_memory
from itda_core.model.built_in import (
    quieten,
)
from itda_core.model.data_types import resolved_dtype
from itda_core.model.model import Model
from itda_core.model.model_files import identity_of, resolve
from itda_core.model.model_info import bytes_as, least_bytes
from itda_core.model.pretrained import (
    first_line,
    from_pretrained,
    is_of_the_machine,
    no_room,
    without_weights,
)
from itda_core.model.process_lock import alone
from itda_core.model.proved import proved, proved_swept
from itda_core.model.sizes import (
    too_little_for,
)
from itda_core.model.weight_files import stored_tensors


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
    source = resolve(spec)
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
    return bytes_as(stored, dtype) <= memory


def _swept(spec: ModelSpec, source: str, weights: torch.dtype, device: str, memory: int) -> Model:
    stored = stored_tensors(source, spec.revision)
    if (needed := least_bytes(spec, stored, weights) or 0) > memory:  # before anything is built
        raise ModelError(too_little_for(spec.name, needed, memory))
    try:
        module, tokenizer, found = without_weights(spec, source, weights)
        _check_fast(spec, tokenizer)
        identity = identity_of(spec, source, module.config, weights, device)
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
    identity = identity_of(spec, source, module.config, weights, device)
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
