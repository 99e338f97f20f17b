"""ITDA: a dictionary of a language model's own activations, and decompositions by it.

The names below are the public contract; they load on first use, since torch and transformers
take seconds to import.
"""

import importlib
import sys
import types

_HOMES = {
    "matching_pursuit": "pursuit.matching",
    "orthogonal_matching_pursuit": "pursuit.orthogonal",
    "Codes": "pursuit.codes",
    "Dictionary": "dictionary.dictionary",
    "load_model": "model.loading",
    "Model": "model.model",
    "jaccard": "similarity.dictionaries",
    "jaccard_matrix": "similarity.dictionaries",
    "compare": "similarity.dictionaries",
    "word_counts": "similarity.log_odds",
    "train": "training.trainer",
    "train_on_cluster": "cluster.training",
    "move": "training.moving",
    "capture_folder": "training.folder_capture",
    "capture_config": "training.folder_capture",
    "folder_config": "activations.recorded",
    "ActivationFolder": "activations.folder",
    "TrainConfig": "config",
    "ModelSpec": "config",
    "CorpusSpec": "config",
    "HookPoint": "config",
    "load_corpus": "corpus.corpus",
    "read_run": "runs.run",
    "list_runs": "runs.run",
    "evaluate": "evaluation.by_l0",
    "SplicedPrompts": "evaluation.splicing",
    "decompose": "analysis.decomposition",
    "what_if": "analysis.what_if",
    "Edit": "analysis.what_if",
    "Store": "store.store",
    "ItdaError": "errors",
}
_BEFORE = ("decomposition", "interventions", "splicing")
"""Modules that the pages and the README told to import from; their names are public now."""

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module itda_core has no attribute {name!r}")
    return getattr(importlib.import_module(f"itda_core.{_HOMES[name]}"), name)


for _name in _BEFORE:
    _module = types.ModuleType(f"{__name__}.{_name}", "Its names are in itda_core.")
    _module.__getattr__ = __getattr__
    sys.modules[_module.__name__] = _module
