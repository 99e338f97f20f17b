"""The evaluations that can be asked for: of dictionaries that have none, or once more."""

import pandas as pd
import streamlit as st

from itda_core.evaluation.by_l0 import QUICK_TOKENS
from itda_core.jobs.job import ANY
from itda_core.jobs.likely import likely_evaluation_seconds
from itda_core.jobs.submissions import submit_evaluation, submit_quick_evaluation
from pages.components.cached import loaded_run
from pages.components.device_choice import ask_for_device, likely_device
from pages.components.explorer import explorer
from pages.components.job_offer import JobOffer, answer, job_button
from pages.components.run_names import is_made_elsewhere

EVALUATION = JobOffer("evaluation")
QUICK_HELP = (
    f"{QUICK_TOKENS:,} held-out tokens at two L0s, a quarter of the dictionary's own and its own. "
    "Its numbers are marked as a quick run's, and a full evaluation replaces them."
)


def being_evaluated() -> set[str]:
    """The runs whose evaluation runs or waits."""
    return {run_id for job in EVALUATION.active() for run_id in job.run_ids}


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def offer_evaluation(missing: pd.DataFrame) -> None:
    """A button for the dictionaries that have no evaluation and are in no job."""
    is_in_job = missing["run_id"].isin(being_evaluated())
    not_in_jobs = missing[~is_in_job]["directory"]
    directories = [path for path in not_in_jobs if not is_made_elsewhere(loaded_run(path))]
    if len(directories) < len(not_in_jobs):
        st.info(
            "Some of these dictionaries were made elsewhere, and what was held out of their texts "
            "can't be told here. Give other texts: evaluate RUN --save --corpus FILE on the "
            "command line."
        )
    if not directories:
        return
    with st.container(border=True):
        text, button = st.columns([3, 1], vertical_alignment="center")
        count = len(directories)
        in_jobs = int(is_in_job.sum())
        beside = f", and {in_jobs} more {_are(in_jobs)} in the queue" if in_jobs else ""
        text.markdown(
            f"**{count} of the chosen dictionaries {_are(count)} not evaluated yet{beside}.** An "
            "evaluation runs in the background; you can leave this page."
        )
        device = ask_for_device("evaluation_device")
        likely = likely_device(device)
        seconds, quick_seconds = (
            None if likely.trouble else _seconds(tuple(directories), likely.name, quick)
            for quick in (False, True)
        )
        with button:
            is_clicked = job_button("Evaluate", seconds, type="primary", width="stretch")
            is_quick = job_button("Quick run", quick_seconds, help=QUICK_HELP, width="stretch")
        if is_quick:
            runs = [loaded_run(path) for path in directories]
            answer(submit_quick_evaluation(explorer().queue, runs, device))
        if is_clicked:
            submit(directories, device)


def submit(directories: list[str], device: str = ANY) -> None:
    runs = [loaded_run(path) for path in directories]
    answer(submit_evaluation(explorer().queue, runs, device))


@st.cache_data(ttl=300, show_spinner=False)
def _seconds(directories: tuple[str, ...], device: str, quick: bool) -> float | None:
    runs = [loaded_run(directory) for directory in directories]
    dictionaries = [(run.config, run.layer) for run in runs]
    return likely_evaluation_seconds(explorer().queue, dictionaries, device, quick)
