"""transformers' own loading: the class that a configuration stands for, and what its files lack."""

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from itda_core.config import ModelSpec
from itda_core.devices import is_out_of_memory
from itda_core.errors import ModelError
from itda_core.model.built_in import BUILT_IN, quieten
from itda_core.model.damage import damage_of
from itda_core.model.plausible import check_counts, check_no_code
from itda_core.model.weight_files import stored_tensors
from itda_core.model.weights import Weights

ENCODER = ":encoder"
"""Ends the name of a model of which the encoder alone is meant"""


def from_pretrained(spec: ModelSpec, source: str, dtype: torch.dtype):
    """The module and the tokenizer that transformers makes of a folder or a hub id.

    Raises ModelError with the remedy, also where weights that the activations need are not in the
    files: transformers would draw them at random.
    """
    options = {**_options(spec), "dtype": dtype, "use_safetensors": True}

    def load(kind, _config) -> tuple[nn.Module, dict[str, Any]]:
        return kind.from_pretrained(source, **options, output_loading_info=True)

    return _with_tokenizer(spec, source, load)


def without_weights(spec: ModelSpec, source: str, dtype: torch.dtype):
    """The same with a module whose parameters have no memory, and the `Weights` to put into it.

    Raises ModelError where the files are not such that its blocks can be read one by one.
    """
    stored = stored_tensors(source, spec.revision)
    found = []

    def load(kind, config) -> tuple[nn.Module, dict[str, Any]]:
        found[:] = [Weights(_empty(kind, config, dtype), stored, dtype)]
        return found[0].module, found[0].report.to_dict()

    return *_with_tokenizer(spec, source, load), found[0]


def _empty(kind, config, dtype: torch.dtype) -> nn.Module:
    """The module that a configuration describes; only what is calculated and not learned, such as
    tables of angles, has memory."""
    from accelerate import init_empty_weights

    if method := getattr(config.get_text_config(), "quantization_config", None) or getattr(
        config, "quantization_config", None
    ):
        method = method if isinstance(method, dict) else method.to_dict()
        raise ModelError(
            f"it is quantised ({method.get('quant_method', 'in some way')}), and quantised models "
            "can't be read block by block. Choose one in bfloat16, float16 or float32."
        )
    make = getattr(kind, "_from_config", None) or kind.from_config
    with init_empty_weights(include_buffers=False):
        return make(copy.deepcopy(config), dtype=dtype)


def _options(spec: ModelSpec) -> dict[str, Any]:
    return {"revision": spec.revision, "trust_remote_code": False}


_Load = Callable[[Any, Any], tuple[nn.Module, dict[str, Any]]]
"""From a class of transformers and a configuration to a module and the report of what the files
lack"""


def _with_tokenizer(spec: ModelSpec, source: str, load: _Load):
    from transformers import AutoTokenizer

    quieten()
    try:
        module = _module(spec, source, load)
        tokenizer = AutoTokenizer.from_pretrained(source, **_options(spec))
    except ModelError:
        raise
    except Exception as error:  # transformers and the hub client raise a dozen kinds
        raise ModelError(_why_not(spec.name, source, error)) from error
    return module, tokenizer


def without_part(name: str) -> str:
    """The name of the whole model."""
    return name.removesuffix(ENCODER)


def _module(spec: ModelSpec, source: str, load: _Load) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(source, **_options(spec))
    check_counts(spec.name, config.to_dict())
    check_no_code(spec.name, config)
    is_encoder = spec.name.endswith(ENCODER)
    if refusal := of_two_parts(spec.name, config):
        raise ModelError(f"{spec.name} can't be used: {refusal}")
    module, found = load(_class(config), config)
    if any(_is_of_the_head(module, name) for name in found["missing_keys"]):
        module, found = load(AutoModel, config)  # has no such head
    _check_blocks(spec.name, module, found["unexpected_keys"])
    if is_encoder:
        return _encoder_of(spec.name, module, found["missing_keys"])
    _check_whole(spec.name, module, found["missing_keys"])
    return module


def _check_blocks(name: str, module: nn.Module, unexpected: set[str]) -> None:
    """Raises ModelError where the files hold blocks that the configuration does not speak of: the
    model would be cut short."""
    lists = {
        path: child for path, child in module.named_modules() if isinstance(child, nn.ModuleList)
    }
    for weight in sorted(unexpected):
        for found in re.finditer(r"\.(\d+)\.", weight):
            path = weight[: found.start()]
            blocks = lists.get(path, lists.get(f"{module.base_model_prefix}.{path}"))
            if blocks is not None and int(found.group(1)) >= len(blocks):
                raise ModelError(
                    f"The files of {name} hold more blocks than its config.json speaks of "
                    f"({len(blocks)}): {weight} has no place. Get the model again, or put the "
                    "config.json that belongs to its weights beside them."
                )


def _encoder_of(name: str, module: nn.Module, missing: set[str]) -> nn.Module:
    encoder = module.get_encoder() if hasattr(module, "get_encoder") else module
    if encoder is module or not hasattr(encoder, "config"):
        raise ModelError(
            f"{without_part(name)} has no encoder that can be used without the rest of it. Choose "
            "another model."
        )
    inside = {id(weight) for weight in encoder.parameters()}
    weights = dict(module.named_parameters())
    _check_whole(name, module, {key for key in missing if id(weights.get(key)) in inside})
    return encoder


def text_parts(module: nn.Module) -> list[str]:
    """Paths of what may be used as the text model, the likeliest first: the whole, and within a
    model that also reads images its language model."""
    from transformers import PreTrainedModel

    text_config = module.config.get_text_config()
    inner = [
        path
        for path, child in module.named_modules()
        if isinstance(child, PreTrainedModel)
        and type(child.config) is type(text_config) is not type(module.config)
        and child.get_output_embeddings() is not None
    ]
    return ["", *inner]


def _class(config):
    """The class of transformers that loads what the configuration says was saved: one that predicts
    next tokens where there is one, else the bare model."""
    import transformers
    from transformers.models.auto import modeling_auto

    kinds = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SEQ_TO_SEQ_CAUSAL_LM")
    mappings = [getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES") for kind in kinds]
    with_head = [mapping.get(config.model_type) for mapping in mappings]
    if config.architectures:
        known = {name for mapping in mappings for name in mapping.values()}
        with_head = [name for name in config.architectures if name in known]
    named = (getattr(transformers, name, None) for name in with_head if name)
    return next((kind for kind in named if kind), transformers.AutoModel)


def type_names(module: nn.Module, is_encoder: bool) -> list[str]:
    """The names under which a type may be known (see `known_type`): its class, and the classes with
    a head that the same bare model has. is_encoder: of two parts this one is used."""
    from transformers.models.auto import modeling_auto

    kinds = ("CAUSAL_LM", "MASKED_LM", "IMAGE_TEXT_TO_TEXT", "SEQ_TO_SEQ_CAUSAL_LM")
    mappings = [getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES") for kind in kinds]
    heads = [mapping.get(module.config.model_type) for mapping in mappings]
    names = [type(module).__name__, *(name for name in heads if isinstance(name, str))]
    return [f"{name}{ENCODER if is_encoder else ''}" for name in dict.fromkeys(names)]


def of_two_parts(name: str, config) -> str:
    """Why a model that has an encoder and a decoder can't be used as a whole; empty for others, and
    where the name says that its encoder is meant."""
    parts = (config, config.get_text_config())
    if name.endswith(ENCODER) or not any(
        getattr(part, "is_encoder_decoder", False) for part in parts
    ):
        return ""
    return (
        f"it has an encoder and a decoder ({config.model_type}), which reads what the encoder made "
        f"of another text. Its encoder can be used alone: choose {name}{ENCODER}"
    )


def _is_of_the_head(module: nn.Module, weight: str) -> bool:
    """Whether a weight lies outside the part that gives the activations."""
    prefix = module.base_model_prefix
    return bool(prefix) and hasattr(module, prefix) and not weight.startswith(f"{prefix}.")


def _check_whole(model: str, module: nn.Module, missing: set[str]) -> None:
    """Raises ModelError where a weight that the activations need is missing. They need no pooler,
    and what was never learned (a table of sines) need not be in a file."""
    learned = {name for name, weight in module.named_parameters() if weight.requires_grad}
    needed = [
        name for name in sorted(missing) if name in learned and "pooler" not in name.split(".")
    ]
    if needed:
        others = f" and {len(needed) - 1} others" if len(needed) > 1 else ""
        raise ModelError(
            f"The weights of {model} are not whole: {needed[0]}{others} are missing from its "
            "files. Get the model again, or save it anew with save_pretrained."
        )


def no_room(name: str, error: Exception) -> str:
    """The sentence for an error `is_of_the_machine`."""
    return (
        f"{name} does not fit into memory beside what else is there: {first_line(error)} Close "
        "other programs, or choose a smaller model."
    )


def _why_not(name: str, source: str, error: Exception) -> str:
    if is_of_the_machine(error):
        return no_room(name, error)
    if os.path.isdir(source):  # noqa: PTH112
        why = damage_of(Path(source)) or first_line(error)
        return f"The folder {source} can't be loaded as a model: {why}"
    return (
        f"The model {name!r} is not built in ({', '.join(BUILT_IN)}), is not a folder here, and "
        f"can't be had from the hub: {first_line(error)} Check the name and the network, or use "
        "a built-in model."
    )


def is_of_the_machine(error: Exception) -> bool:
    """Whether something failed for want of memory or of a working device, and not by itself."""
    is_broken = isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
    return is_broken or is_out_of_memory(error)


def first_line(error: Exception) -> str:
    """What an error of another library says, short."""
    line = str(error).strip().split("\n")[0][:200].rstrip(".")
    return f"{line or type(error).__name__}."
