"""Measures that a job computes: how many pairs are known, and a button for the others."""

from pathlib import Path

import streamlit as st

from pages.components.pairs import JACCARD, Values
from pages.components.session import explorer, loaded_run
from pages.components.similarity_choice import Choice
from pages.components.text import literal

_COMMANDS = ("measure", "compare")


def offer_comparison(choice: Choice, found: Values) -> None:
    """What is known of the matrix, and a button that queues what is not."""
    if choice.kind.name == JACCARD or not found.missing:
        return
    directories = _directories(choice, found)
    known = found.n_pairs - len(found.missing)
    busy = _busy()
    with st.container(border=True):
        if len(directories) < 2:
            st.markdown(
                "This measure compares two dictionaries or more: choose another model, or train "
                "more layers of this one."
            )
            return
        text, button = st.columns([3, 1], vertical_alignment="center")
        text.markdown(
            f"**{known:,} of {found.n_pairs:,} pairs are known.** The others are computed from "
            "activations of both models on the same prompts, in the background; you can leave "
            "this page."
        )
        if set(directories) <= busy:
            text.caption("They are being computed.")
            return
        pairs = "pair" if len(found.missing) == 1 else "pairs"
        label = f"Compute ({len(found.missing):,} {pairs})"
        if button.button(label, type="primary", width="stretch"):
            runs = [loaded_run(directory) for directory in directories]
            explorer().queue.submit_comparison(runs, [choice.kind.name])
            st.rerun()
    _show_last_failure()


def _directories(choice: Choice, found: Values) -> list[str]:
    """The run directories that stand in a pair that is missing."""
    wanted = {run_id for pair in found.missing for run_id in pair}
    by_id = {
        run_id: directory
        for group in choice.groups
        for run_id, directory in zip(group.run_ids, group.directories, strict=True)
    }
    return [directory for run_id, directory in by_id.items() if run_id in wanted]


def _busy() -> set[str]:
    """The directories that waiting or running comparisons name."""
    jobs = [job for job in explorer().queue.jobs() if job.is_active and job.command in _COMMANDS]
    return {path for job in jobs for path in job.arguments if Path(path).is_absolute()}


def _show_last_failure() -> None:
    jobs = [job for job in explorer().queue.jobs() if job.command in _COMMANDS]
    if jobs and jobs[-1].state == "failed":
        error = jobs[-1].error.removeprefix("Error: ")
        st.warning(literal(f"The last comparison failed. {error}"))
