"""Measures that a job computes: how many pairs are known, and buttons for the others."""

from collections.abc import Collection

import streamlit as st

from itda_core.jobs.job import Job
from itda_core.jobs.submissions import submit_comparison
from itda_core.similarity.measures import JACCARD, MEASURES
from pages.components.cached import loaded_run
from pages.components.device_choice import ask_for_device
from pages.components.explorer import explorer
from pages.components.job_offer import JobOffer, answer, job_button, say_under_way
from pages.components.similarity.choice import Choice
from pages.components.similarity.values import Values

_COMPARISON = JobOffer("comparison")


def offer_comparison(choice: Choice, values: Values) -> None:
    """What is known of the matrix, and buttons that queue what is not."""
    if choice.kind is JACCARD or not values.missing:
        return
    directories = _directories(choice, values)
    n_known = values.n_pairs - len(values.missing)
    with st.container(border=True):
        if len(directories) < 2:
            st.markdown(
                "This measure compares two dictionaries or more: choose another model, or train "
                "more layers of this one."
            )
            return
        st.markdown(
            f"**{n_known:,} of {values.n_pairs:,} pairs are known.** The others are computed from "
            "activations of the models on the same prompts, in the background; you can leave "
            "this page."
        )
        if under_way := _under_way(directories, choice.kind.name):
            say_under_way(under_way, "Computing")
            return
        _show_buttons([*directories.values()], choice.kind.name, len(values.missing))
    _COMPARISON.show_last_failure()


def _show_buttons(directories: list[str], measure: str, n_missing: int) -> None:
    pairs = "pair" if n_missing == 1 else "pairs"
    device = ask_for_device("comparison_device")
    with st.container(horizontal=True):
        is_this = job_button(f"Compute ({n_missing:,} {pairs})", type="primary")
        is_every = job_button(
            f"Compute all {len(MEASURES)} measures",
            help="The models run once for all measures, so that switching between them is "
            "instant afterwards.",
        )
    if is_this or is_every:
        runs = [loaded_run(directory) for directory in directories]
        measures = list(MEASURES) if is_every else [measure]
        answer(submit_comparison(explorer().queue, runs, measures, device))


def _directories(choice: Choice, values: Values) -> dict[str, str]:
    """The directories of the runs that stand in a pair that is missing, by run id."""
    missing = {run_id for pair in values.missing for run_id in pair}
    directories = {
        run_id: directory
        for group in choice.groups
        for run_id, directory in zip(group.run_ids, group.directories, strict=True)
    }
    return {run_id: directory for run_id, directory in directories.items() if run_id in missing}


def _under_way(run_ids: Collection[str], measure: str) -> list[Job]:
    """The waiting and running comparisons that have all of these, by this measure."""
    return [
        job
        for job in _COMPARISON.active()
        if set(run_ids) <= set(job.run_ids) and measure in job.measures
    ]
