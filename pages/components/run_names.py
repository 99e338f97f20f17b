"""What dictionaries are called, and how one is chosen."""

import pandas as pd
import streamlit as st

from itda_core.runs.run import Run
from pages.components.url import follow_url, keep, write_url


def is_made_elsewhere(run: Run) -> bool:
    """Whether what is held out here may be what a dictionary was made of."""
    return run.about.get("origin") == "published"


def run_label(run) -> str:
    """How a dictionary is called in lists: model, layer, and what tells it from its siblings."""
    name = run.model.rstrip("/").split("/")[-1]
    digest = run.training_id.rpartition("-")[2]
    size = f"{run.atoms:,} latents" if run.kind == "sae" else f"{run.atoms:,} atoms"
    kind = f"{run.method} · " if run.kind == "sae" else ""
    return f"{name} · layer {run.layer} · {kind}{size} · L0 {l0_text(run)} · {digest}"


def l0_text(run) -> str:
    """Terms that a token may use; where they differ, how many it has on average."""
    if pd.notna(run.mean_l0) and round(run.mean_l0, 1) != run.l0:
        return f"{run.mean_l0:.1f} on average"
    return f"{run.l0} on average" if run.budget == "mean" else str(run.l0)


def origin_word(run) -> str:
    """What the token is called that a latent is titled with: the atom's source, or of an
    autoencoder the token that is strongest on the latent."""
    return "strongest token" if run.kind == "sae" else "source token"


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
    values = {kind: {one[kind] for one in parts.values()} - {""} for kind in kinds}
    differ = [kind for kind in kinds if len(values[kind]) > 1 and kind != "digest"]
    kept = ["layer", "kind", *differ]
    labels = {run_id: _joined(one, kinds, kept) for run_id, one in parts.items()}
    names = list(labels.values())
    return {
        run_id: label if names.count(label) == 1 else f"{label} · {parts[run_id]['digest']}"
        for run_id, label in labels.items()
    }


def _parts(run) -> dict[str, str]:
    """All that may tell a dictionary from others, the most telling first."""
    return {
        "model": run.model.rstrip("/").split("/")[-1],
        "layer": f"layer {run.layer}",
        "kind": run.method if run.kind == "sae" else "",
        "atoms": f"{run.atoms:,} latents",
        "l0": f"L0 {l0_text(run)}",
        "method": "" if run.kind == "sae" else run.method,
        "tokens": f"{run.tokens:,} tokens",
        "seed": f"seed {run.seed}",
        "digest": run.training_id.rpartition("-")[2],
    }


def _joined(parts: dict[str, str], kinds: list[str], kept: list[str]) -> str:
    return " · ".join(parts[kind] for kind in kinds if kind in kept and parts[kind])
