"""A tiny configuration of any type."""

import copy
import dataclasses
import itertools
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tools.model_types.listing import ModelType
from tools.model_types.sizes import LAYER_LISTS, PER_TYPE, SMALL, VOCABULARY
from tools.model_types.tokenizer import BOS, EOS, MASK, PAD, TOKENIZER_SIZE, UNK

_SPECIAL_IDS = {
    "pad": PAD,
    "bos": BOS,
    "cls": BOS,
    "eos": EOS,
    "sep": EOS,
    "eod": EOS,
    "unk": UNK,
    "mask": MASK,
    "forced_bos": BOS,
    "forced_eos": EOS,
}
_ID_ENDINGS = ("_token_id", "_token_index", "_index")
_NEVER_OFF = {"num_key_value_heads", "out_hidden_size", "head_dim"}
"""Settings that are None where they follow from others, and are more telling when set"""


def tiny_config(one: ModelType) -> PreTrainedConfig:
    """A configuration with every size made small, nested ones too.

    Raises whatever transformers does where its own default doesn't hold.
    """
    config_class = CONFIG_MAPPING[one.model_type]
    settings = _settings(config_class, _OtherIds())
    if one.kind == "causal":
        settings |= _as_decoder(config_class)
    config = config_class(**settings)
    config.architectures = [one.class_name]
    return config


class _OtherIds:
    """Numbers for tokens of images and the like: beyond the tokenizer's, one for each name."""

    def __init__(self):
        self._ids: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self._ids.setdefault(
            name.removesuffix("_id").removesuffix("_index"),
            TOKENIZER_SIZE + len(self._ids) % (VOCABULARY - TOKENIZER_SIZE),
        )


def _settings(config_class: type[PreTrainedConfig], ids: _OtherIds) -> dict[str, Any]:
    """What differs from the defaults, by name."""
    exceptions = copy.deepcopy(PER_TYPE.get(config_class.model_type, {}))
    nested = {**_nested_classes(config_class, exceptions)}
    settings: dict[str, Any] = {}
    for name, default in _defaults(config_class).items():
        if name in nested:
            continue
        if name in exceptions:
            settings[name] = exceptions.pop(name)
        elif name in SMALL:
            smaller = _smaller(name, default)
            settings |= {} if smaller is None else {name: smaller}
        elif name.endswith(_ID_ENDINGS):
            settings[name] = _token_id(name, default, ids)
    for name, inner in nested.items():
        settings[name] = {
            **_settings(inner, ids),
            **({"model_type": inner.model_type} if inner.model_type else {}),
            **exceptions.pop(name, {}),
        }
    settings |= exceptions
    if "kv_lora_rank" in settings:  # one compressed key for all heads
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    return _layer_lists(config_class, settings) | settings


def _layer_lists(config_class: type[PreTrainedConfig], settings: dict) -> dict[str, list[str]]:
    """Layers of each kind that the default has, in turn: three layers may be all of the first."""
    names = [name for name in LAYER_LISTS if name in _defaults(config_class)]
    default = config_class() if names else None
    n_layers = settings.get("num_hidden_layers", 0)
    lists = {}
    for name in names:
        kinds = list(dict.fromkeys(getattr(default, name) or []))
        if len(kinds) > 1:
            lists[name] = list(itertools.islice(itertools.cycle(kinds), n_layers))
    return lists


def _nested_classes(config_class: type, exceptions: dict) -> dict[str, type]:
    """The classes of the configurations inside one, by the setting that holds them."""
    names = getattr(config_class, "sub_configs", None) or {}
    if not names:
        return {}
    chosen = {
        name: CONFIG_MAPPING[exceptions[name].pop("model_type")]
        for name in names
        if isinstance(exceptions.get(name), dict) and "model_type" in exceptions[name]
    }
    if chosen.keys() >= names.keys():
        return chosen
    default = config_class()
    inner = {name: getattr(default, name, None) for name in names}
    return {
        name: type(value) for name, value in inner.items() if isinstance(value, PreTrainedConfig)
    } | chosen


def _defaults(config_class: type) -> dict[str, Any]:
    defaults = {}
    for field in dataclasses.fields(config_class):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
        else:
            defaults[field.name] = None
    return defaults


def _smaller(name: str, default: Any) -> Any:
    """The table's value, of the default's form: a number, or as many of them in a list."""
    small = SMALL[name]
    if name == "vocab_size":
        return small
    if default is None:
        return small if name in _NEVER_OFF else None
    if isinstance(default, list | tuple):
        return [_smaller(name, one) for one in default]
    if isinstance(default, bool | str):
        return default
    return type(default)(min(default, small)) if default > 0 else default


def _token_id(name: str, default: Any, ids: _OtherIds) -> int | None:
    role = name.removesuffix("_id").removesuffix("_index").removesuffix("_token")
    if role.endswith("decoder_start"):
        return None if default is None else PAD if default == 0 else EOS
    if role in _SPECIAL_IDS:
        return _SPECIAL_IDS[role]
    return ids[name]


def _as_decoder(config_class: type) -> dict[str, Any]:
    """What makes a next-token model of a type that can also be an encoder, or have one."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    return {"is_decoder": True} if "is_decoder" in fields else {}
