"""What dictionaries are called where there is little room. Pure functions."""

import pandas as pd

from pages.components.session import l0_text


def short_labels(runs: pd.DataFrame) -> dict[str, str]:
    """A name for each dictionary by what tells it from the others: "layer 7", "layer 7 · L0 16".

    runs: rows of Store.runs. Imported autoencoders are always named as such.
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
