"""What dictionaries are called, and how one is chosen."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from itda_core.config import layer_in_words
from itda_core.runs.run import Run
from pages.components.text import visible
from pages.components.url import follow_url, keep, write_url


@dataclass(frozen=True)
class KindWords:
    """What is said differently of dictionaries of tokens and of imported autoencoders."""

    units: str
    """what a dictionary has many of"""
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
        units="atoms",
        source="source token",
        dead="No explored token uses this latent: another atom is always nearer.",
    ),
    "sae": KindWords(
        units="latents",
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
    """How a dictionary is called in lists: model, layer, and what tells it from its siblings."""
    name = visible(run.model.rstrip("/").split("/")[-1])
    digest = run.training_id.rpartition("-")[2]
    words = words_of(run)
    method = f"{run.method} · " if words.is_named else ""
    size = f"{method}{run.atoms:,} {words.units}"
    return f"{name} · {layer_of(run)} · {size} · L0 {l0_text(run)} · {digest}"


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
    digest = origin.training_id.rpartition("-")[2]
    if origin.model != run.model:
        return f"{visible(origin.model.rstrip('/').split('/')[-1])} {layer_of(origin)}"
    is_same_place = (origin.layer, origin.site) == (run.layer, run.site)
    return f"{layer_of(origin)} · {digest}" if is_same_place else layer_of(origin)


def l0_text(run) -> str:
    """Terms that a token may use; where they differ, how many it has on average."""
    if pd.notna(run.mean_l0) and round(run.mean_l0, 1) != run.l0:
        return f"{run.mean_l0:.1f} on average"
    return f"{run.l0} on average" if run.budget == "mean" else str(run.l0)


def choose_run(runs: pd.DataFrame, label: str = "Dictionary", name: str = "run"):
    """A select box of dictionaries that follows and writes the URL; returns the chosen row."""
    rows = {row.run_id: row for row in runs.itertuples()}
    keep(name)
    follow_url(name, [*rows])
    labels = {run_id: run_label(row) for run_id, row in rows.items()}
    chosen = st.selectbox(label, [*rows], format_func=labels.get, key=name)
    write_url(name, chosen)
    return rows[chosen]


def short_labels(runs: pd.DataFrame) -> dict[str, str]:
    """A name for each dictionary by what tells it from the others: "layer 7", "layer 7 · L0 16".

    runs: rows of Store.runs.table. Imported autoencoders are always named as such.
    """
    parts = {row.run_id: _parts(row) for row in runs.itertuples()}
    kinds = list(next(iter(parts.values()))) if parts else []
    values = {kind: {part[kind] for part in parts.values()} - {""} for kind in kinds}
    differ = [kind for kind in kinds if len(values[kind]) > 1 and kind != "digest"]
    shown = ["layer", "kind", *differ]
    labels = {run_id: _joined(part, kinds, shown) for run_id, part in parts.items()}
    names = list(labels.values())
    return {
        run_id: label if names.count(label) == 1 else f"{label} · {parts[run_id]['digest']}"
        for run_id, label in labels.items()
    }


def _parts(run) -> dict[str, str]:
    """All that may tell a dictionary from others, what tells most first."""
    return {
        "model": visible(run.model.rstrip("/").split("/")[-1]),
        "layer": layer_of(run),
        "kind": run.method if words_of(run).is_named else "",
        "atoms": f"{run.atoms:,} latents",
        "l0": f"L0 {l0_text(run)}",
        "method": "" if words_of(run).is_named else run.method,
        "tokens": f"{run.tokens:,} tokens",
        "seed": f"seed {run.seed}",
        "digest": run.training_id.rpartition("-")[2],
    }


def _joined(parts: dict[str, str], kinds: list[str], shown: list[str]) -> str:
    return " · ".join(parts[kind] for kind in kinds if kind in shown and parts[kind])
