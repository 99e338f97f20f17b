"""ITDA: a dictionary of a language model's own activations, and decompositions by it.

The names below are the public contract; they load on first use, since torch and transformers
take seconds to import.
"""

import importlib

_HOMES = {
    "matching_pursuit": "pursuit",
    "Codes": "codes",
    "Dictionary": "dictionary",
    "load_model": "loading",
    "Model": "models",
    "jaccard": "similarity",
    "jaccard_matrix": "similarity",
    "compare": "similarity",
    "train": "training",
    "TrainConfig": "config",
    "ModelSpec": "config",
    "CorpusSpec": "config",
    "HookPoint": "config",
    "load_corpus": "corpus",
    "evaluate": "evaluation",
    "Store": "store",
    "ItdaError": "errors",
}

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module itda_core has no attribute {name!r}")
    return getattr(importlib.import_module(f"itda_core.{_HOMES[name]}"), name)
