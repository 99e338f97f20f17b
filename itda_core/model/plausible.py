"""Folders and configurations of models that can't be what they say, refused before use."""

import json
from pathlib import Path
from typing import Any

from itda_core.errors import ModelError, first_line
from itda_core.files.foreign import check_foreign, read_foreign

_MOST_LAYERS = 10_000
_MOST_WIDE = 10_000_000
"""Of a width, or a vocabulary: a thousand times, and thirty times, what there is today"""
_WIDTHS = ("size", "dim", "d_model", "n_embd", "d_ff", "n_inner", "heads", "experts")
_MOST_POSITIONS = 2**24
"""One and a half times what there is today, with which some types make tables of sines"""
_POSITIONS = ("position_embeddings", "positions", "n_ctx")


def check_folder(folder: Path) -> None:
    """Raises ModelError where a file that is read of a model's folder is none, or its
    configuration can't be a model's."""
    file = folder / "config.json"
    try:
        for pattern in ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"):
            for path in folder.glob(pattern):
                check_foreign(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"The model in {folder} can't be read: {error}.") from error
    try:
        said = json.loads(read_foreign(file))  # numbers of any length: 10³⁰ stands for no limit
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{folder} can't be loaded as a model: {file} is damaged: it can't be read as JSON "
            f"({first_line(error)}). Get the model again."
        ) from error
    check_counts(str(folder), said)


def check_counts(name: str, config: Any) -> None:
    """Raises ModelError where a configuration asks for more layers, or wider ones, than any model
    has: they would be built before a weight is missed."""
    for key, value in _numbers(config):
        most = _most(key)
        # The number of one layer may be counted from the last: vision_feature_layer = -2.
        least = -_MOST_LAYERS if key.endswith("_layer") and key != "n_layer" else -1
        if most is not None and not least <= value <= most:
            raise ModelError(
                f"{name} can't be used: its config.json asks for {key} = {value:,}, and at most "
                f"{most:,} is read here. Get the model again."
            )


def check_no_code(name: str, config: Any) -> None:
    """Raises ModelError where transformers' configuration of a model names a kernel of the hub,
    which transformers would load and run."""
    for which in ("attn", "experts"):
        asked = getattr(config, f"_{which}_implementation", None)
        if isinstance(asked, str) and "/" in asked:
            raise ModelError(
                f"{name} can't be used: its config.json asks for code of the hub ({asked!r:.200}, "
                f"as {which}_implementation), and none is run. Remove that line."
            )
    for part in getattr(config, "sub_configs", None) or ():
        check_no_code(name, getattr(config, part, None))


def _most(key: str) -> int | None:
    """What a number of this name may be; None where it makes nothing larger."""
    if "layer" in key:
        return _MOST_LAYERS
    if key.endswith(_POSITIONS):
        return _MOST_POSITIONS
    return _MOST_WIDE if key.endswith(_WIDTHS) else None


def _numbers(config: Any, depth: int = 6) -> list[tuple[str, int]]:
    """The whole numbers of a configuration and its parts, by their names."""
    found = []
    for key, value in config.items() if isinstance(config, dict) and depth else ():
        if isinstance(value, int) and not isinstance(value, bool):
            found.append((str(key), value))
        found += _numbers(value, depth - 1)
    return found
