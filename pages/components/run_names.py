"""What dictionaries are called, and how one is chosen."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from itda_core.config import layer_in_words
from itda_core.runs.run import Run
from pages.components.explorer import explorer
from pages.components.text import last_part, visible
from pages.components.upload import short_corpus_name
from pages.components.url import follow_url, keep, write_url


@dataclass(frozen=True)
class KindWords:
    """What is said differently of dictionaries of tokens and of imported autoencoders."""

    source: str
    """what the token is called that a latent is titled with"""
    dead: str
    """of a latent that no explored token uses"""
    terms: str | None = None
    """what the terms of a token are; None where the pursuit says it"""
    takes_steps: bool = True
    """whether one step more would take one term more"""
    is_named: bool = False
    """whether its method is always part of its name"""


_WORDS = {
    "itda": KindWords(
        source="source token",
        dead="No explored token uses this latent: another atom is always nearer.",
    ),
    "sae": KindWords(
        source="strongest token",
        dead="No explored token activates this latent. The token above is the one that comes "
        "nearest to it.",
        terms="The latents that the autoencoder's encoder activates, strongest first. They are not "
        "fitted to this token, so a term can also add to what is left.",
        takes_steps=False,
        is_named=True,
    ),
}


def words_of(run) -> KindWords:
    """The words for a row of the store's runs."""
    return _WORDS[run.kind]


def is_made_elsewhere(run: Run) -> bool:
    """Whether what is held out here may be what a dictionary was made of, or can't be told."""
    return bool(run.why_no_held_out)


def run_label(run) -> str:
    """What a dictionary is called wherever it is named alone: the name that a person gave it,
    model, layer and corpus; and what differs, where two would read alike."""
    names = explorer().names
    return _known_labels(names).get(run.run_id) or _joined(_parts(run, names), _ALWAYS)


def _known_labels(names: dict[str, str]) -> dict[str, str]:
    return explorer().store.known(_labels, tuple(sorted(names.items())))


def _labels(names: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return full_labels(explorer().store.runs.table(), dict(names))


def full_labels(runs: pd.DataFrame, names: dict[str, str]) -> dict[str, str]:
    """The names of dictionaries by run id, no two alike: what `_ALWAYS` has, and of those that
    would read alike what differs among them; a digest where nothing else does.

    runs: rows of Store.runs.table; names: those that people gave, by run id.
    """
    return _each_its_own({row.run_id: _parts(row, names) for row in runs.itertuples()}, _ALWAYS)


def layer_of(run) -> str:
    """ "layer 7", or "layer 7 mlp_out" where it is not the block's output."""
    return layer_in_words(run.layer, run.site)


def origin_text(run_id: str, run, runs: pd.DataFrame) -> str:
    """Where a label is from that is shown in another dictionary: "layer 15", or what else tells the
    two apart. run_id: where it was given; run: where it is shown; runs: Store.runs.table()."""
    found = runs[runs["run_id"] == run_id]
    if found.empty:
        return f"a run that is not here, {visible(run_id)}"
    origin = next(found.itertuples())
    names = explorer().names
    if run_id in names:
        return f"“{visible(names[run_id])}”"
    if origin.model != run.model:
        return f"{_model_name(origin)} {layer_of(origin)}"
    if (origin.layer, origin.site) != (run.layer, run.site):
        return layer_of(origin)
    both = {row.run_id: _parts(row, {}) for row in (origin, run)}
    return _told_apart(both, ("layer",))[run_id]


def l0_text(run) -> str:
    """Terms that a token may use; where they differ, how many it has on average."""
    if pd.notna(run.mean_l0) and round(run.mean_l0, 1) != run.l0:
        return f"{run.mean_l0:.1f} on average"
    return f"{run.l0} on average" if run.budget == "mean" else str(run.l0)


def choose_run(runs: pd.DataFrame, label: str = "Dictionary", name: str = "run"):
    """A select box of dictionaries that follows and writes the URL; returns the chosen row."""
    ids = runs["run_id"].tolist()
    keep(name)
    follow_url(name, ids)
    known = _known_labels(explorer().names)
    labels = {run_id: known.get(run_id) or run_label(_row(runs, run_id)) for run_id in ids}
    chosen = st.selectbox(label, ids, format_func=labels.get, key=name)
    write_url(name, chosen)
    return _row(runs, chosen)


def _row(runs: pd.DataFrame, run_id: str) -> Any:
    """As `itertuples` gives it: of ten dictionaries all rows took 3 % of a click."""
    [row] = runs[runs["run_id"] == run_id].itertuples()
    return row


_ALWAYS = ("name", "model", "layer", "kind", "corpus")
_LAST_RESORTS = ("owner", "digest")
"""Said only where two would read alike without"""


def short_labels(
    runs: pd.DataFrame, names: dict[str, str], among: pd.DataFrame | None = None
) -> dict[str, str]:
    """A name for each dictionary by what tells it from the others: "layer 7", "layer 7 · L0 16".

    runs: rows of Store.runs.table; names: as in `full_labels`; among: rows of all dictionaries that
    they are told from, where these are more, by model and corpus and what else it takes. Imported
    autoencoders are always named as such.
    """
    chosen = {row.run_id: _parts(row, names) for row in runs.itertuples()}
    others = {} if among is None else {row.run_id: _parts(row, names) for row in among.itertuples()}
    parts = others | chosen
    differ = _differing(chosen) | (_differing(parts) & {"model", "corpus"})
    shown = {"name", "layer", "kind", *differ} - set(_LAST_RESORTS)
    labels = _each_its_own(parts, shown)
    return {run_id: labels[run_id] for run_id in chosen}


def _each_its_own(parts: dict[str, dict[str, str]], always: Collection[str]) -> dict[str, str]:
    """Some parts of each dictionary, and of those that would read alike those in which these
    differ. parts: of `_parts`, by run id."""
    alike: dict[str, list[str]] = {}
    for run_id, part in parts.items():
        alike.setdefault(_joined(part, always), []).append(run_id)
    labels = {}
    for run_ids in alike.values():
        labels |= _told_apart({run_id: parts[run_id] for run_id in run_ids}, always)
    return labels


def _differing(parts: dict[str, dict[str, str]]) -> set[str]:
    """The kinds of parts in which some dictionaries differ."""
    kinds = list(next(iter(parts.values()))) if parts else []
    return {kind for kind in kinds if len({part[kind] for part in parts.values()} - {""}) > 1}


def _told_apart(parts: dict[str, dict[str, str]], always: Collection[str]) -> dict[str, str]:
    """Some parts of each dictionary and those in which these differ; a digest where two are left
    alike. parts: of `_parts`, by run id."""
    differ = _differing(parts)
    shown = {*always, *differ} - set(_LAST_RESORTS)
    labels = {run_id: _joined(part, shown) for run_id, part in parts.items()}
    for last_resort in _LAST_RESORTS:
        count = Counter(labels.values())
        labels = {
            run_id: f"{label} · {parts[run_id][last_resort]}"
            if count[label] > 1 and last_resort in differ
            else label
            for run_id, label in labels.items()
        }
    return labels


def _parts(run, names: dict[str, str]) -> dict[str, str]:
    """All that may tell a dictionary from others, in the order in which it is said."""
    name = names.get(run.run_id, "")
    return {
        "name": f"“{visible(name)}”" if name else "",
        "model": _model_name(run),
        "layer": layer_of(run),
        "kind": run.method if words_of(run).is_named else "",
        "corpus": short_corpus_name(run.corpus),
        "owner": visible(run.model),
        "atoms": f"{run.atoms:,} latents",
        "l0": f"L0 {l0_text(run)}",
        "method": "" if words_of(run).is_named else run.method,
        "tokens": f"{run.tokens:,} tokens",
        "seed": f"seed {run.seed}",
        "digest": run.training_id.rpartition("-")[2],
    }


def _model_name(run) -> str:
    return visible(last_part(run.model))


def _joined(parts: dict[str, str], shown: Collection[str]) -> str:
    return " · ".join(part for kind, part in parts.items() if kind in shown and part)
