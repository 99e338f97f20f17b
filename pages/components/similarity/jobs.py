"""Measures that a job computes: how many pairs are known, and buttons for the others."""

from collections.abc import Sequence

import streamlit as st

from itda_core.similarity.measures import MEASURES
from pages.components.cached import loaded_run
from pages.components.explorer import explorer
from pages.components.similarity.choice import Choice
from pages.components.similarity.values import JACCARD, Values
from pages.components.text import literal

_COMMAND = "measure"


def offer_comparison(choice: Choice, found: Values) -> None:
    """What is known of the matrix, and buttons that queue what is not."""
    if choice.kind.name == JACCARD or not found.missing:
        return
    directories = _directories(choice, found)
    known = found.n_pairs - len(found.missing)
    with st.container(border=True):
        if len(directories) < 2:
            st.markdown(
                "This measure compares two dictionaries or more: choose another model, or train "
                "more layers of this one."
            )
            return
        st.markdown(
            f"**{known:,} of {found.n_pairs:,} pairs are known.** The others are computed from "
            "activations of the models on the same prompts, in the background; you can leave "
            "this page."
        )
        if _is_under_way(directories, choice.kind.name):
            st.caption("They are being computed.")
            return
        _show_buttons(directories, choice.kind.name, len(found.missing))
    _show_last_failure()


def _show_buttons(directories: Sequence[str], measure: str, n_missing: int) -> None:
    pairs = "pair" if n_missing == 1 else "pairs"
    with st.container(horizontal=True):
        one = st.button(f"Compute ({n_missing:,} {pairs})", type="primary")
        every = st.button(
            f"Compute all {len(MEASURES)} measures",
            help="The models run once for all measures, so that switching between them is "
            "instant afterwards.",
        )
    if one or every:
        runs = [loaded_run(directory) for directory in directories]
        explorer().queue.submit_comparison(runs, list(MEASURES) if every else [measure])
        st.rerun()


def _directories(choice: Choice, found: Values) -> list[str]:
    """The run directories that stand in a pair that is missing."""
    wanted = {run_id for pair in found.missing for run_id in pair}
    by_id = {
        run_id: directory
        for group in choice.groups
        for run_id, directory in zip(group.run_ids, group.directories, strict=True)
    }
    return [directory for run_id, directory in by_id.items() if run_id in wanted]


def _is_under_way(directories: Sequence[str], measure: str) -> bool:
    """Whether a waiting or running comparison has all of these, by this measure."""
    return any(
        job.is_active
        and job.command == _COMMAND
        and set(directories) <= set(job.arguments)
        and measure in job.arguments[job.arguments.index("--measures") + 1].split(",")
        for job in explorer().queue.jobs()
    )


def _show_last_failure() -> None:
    jobs = [job for job in explorer().queue.jobs() if job.command == _COMMAND]
    if jobs and jobs[-1].state == "failed":
        error = jobs[-1].error.removeprefix("Error: ")
        st.warning(literal(f"The last comparison failed. {error}"))
