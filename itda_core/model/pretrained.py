"""transformers' own loading: the class that a configuration stands for, and what its files lack."""

import os

import torch
from torch import nn

from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model.built_in import BUILT_IN, quieten

ENCODER = ":encoder"
"""Ends the name of a model of which the encoder alone is meant"""
_HEADS = ("CausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the classes that predict next tokens end"""


def from_pretrained(spec: ModelSpec, source: str, dtype: torch.dtype):
    """The module and the tokenizer that transformers makes of a folder or a hub id.

    Raises ModelError with the remedy, also where weights that the activations need are not in the
    files: transformers would draw them at random.
    """
    from transformers import AutoTokenizer

    quieten()
    options = {"revision": spec.revision, "trust_remote_code": False}
    try:
        module = _module(spec, source, dtype, options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except ModelError:
        raise
    except Exception as error:  # transformers and the hub client raise a dozen kinds
        raise ModelError(_why_not(spec.name, source, error)) from error
    return module, tokenizer


def without_part(name: str) -> str:
    """The name of the whole model."""
    return name.removesuffix(ENCODER)


def _module(spec: ModelSpec, source: str, dtype: torch.dtype, options: dict) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(source, **options)
    is_encoder = spec.name.endswith(ENCODER)
    if _is_encoder_decoder(config) and not is_encoder:
        raise ModelError(
            f"{spec.name} has an encoder and a decoder ({config.model_type}), which reads what the "
            f"encoder made of another text: only its encoder can be used. Choose "
            f"{spec.name}{ENCODER}"
        )
    kind = AutoModel if is_encoder else _auto_class(config)
    options = {**options, "dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    module, found = kind.from_pretrained(source, **options)
    missing = sorted(found["missing_keys"])
    if kind is not AutoModel and any(_is_of_the_head(module, name) for name in missing):
        module, found = AutoModel.from_pretrained(source, **options)  # has no such head
        missing = sorted(found["missing_keys"])
    if is_encoder:
        if not hasattr(module, "get_encoder") or module.get_encoder() is module:
            raise ModelError(f"{without_part(spec.name)} has no encoder apart. Use it as it is.")
        return _checked(spec.name, module.get_encoder(), _of_encoder(module, missing))
    return _checked(spec.name, module, missing)


def _auto_class(config):
    """The class of transformers that loads what the configuration says was saved."""
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
    )

    names = config.architectures or []
    if names and not any(name.endswith(_HEADS) for name in names):
        return AutoModel
    kinds = (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM)
    able = {kind: kind._model_mapping.get(type(config), None) for kind in kinds}
    by_name = [kind for kind, made in able.items() if getattr(made, "__name__", "") in names]
    others = [kind for kind, made in able.items() if made is not None]
    return next(iter(by_name + others), AutoModel)


def _is_encoder_decoder(config) -> bool:
    parts = (config, config.get_text_config())
    return any(getattr(part, "is_encoder_decoder", False) for part in parts)


def _is_of_the_head(module: nn.Module, weight: str) -> bool:
    """Whether a weight lies outside the part that gives the activations."""
    prefix = module.base_model_prefix
    return bool(prefix) and hasattr(module, prefix) and not weight.startswith(f"{prefix}.")


def _of_encoder(module: nn.Module, missing: list[str]) -> list[str]:
    names = {id(weight) for weight in module.get_encoder().parameters()}
    return [
        name
        for name, weight in module.named_parameters()
        if name in missing and id(weight) in names
    ]


def _checked(name: str, module: nn.Module, missing: list[str]) -> nn.Module:
    """The module, where no weight that the activations need is missing; a pooler is none."""
    needed = [weight for weight in missing if "pooler" not in weight.split(".")]
    if needed:
        others = f" and {len(needed) - 1} others" if len(needed) > 1 else ""
        raise ModelError(
            f"The weights of {name} are not whole: {needed[0]}{others} are missing from its files. "
            "Get the model again, or save it anew with save_pretrained."
        )
    return module


def _why_not(name: str, source: str, error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"{name} does not fit into memory. Choose a smaller model."
    if os.path.isdir(source):  # noqa: PTH112
        return f"The folder {source} can't be loaded as a model: {_first_line(error)}"
    return (
        f"The model {name!r} is not built in ({', '.join(BUILT_IN)}), is not a folder here, and "
        f"can't be had from the hub: {_first_line(error)} Check the name and the network, or use "
        "a built-in model."
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0][:200].rstrip(".")
    return f"{line or type(error).__name__}."
