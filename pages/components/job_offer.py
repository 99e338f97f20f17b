"""What a page offers to have made by a job: the button, how long it takes, what is said once it is
clicked, why it failed last."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from itda_core.jobs.job import Job
from pages.components.explorer import explorer
from pages.components.job_title import job_title
from pages.components.text import literal, seconds_text


@dataclass(frozen=True)
class JobOffer:
    """Jobs of one kind: about one run where it is given, else all."""

    kind: str
    """as in `Job.kind`"""
    run_id: str = ""

    def jobs(self) -> list[Job]:
        """Those of the queue, the newest last."""
        jobs = [job for job in explorer().queue.jobs() if job.kind == self.kind]
        return [job for job in jobs if not self.run_id or self.run_id in job.run_ids]

    def active(self) -> list[Job]:
        """Those that run or wait, but for those that wait to be let in."""
        queue = explorer().queue
        return [job for job in self.jobs() if job.is_active and not queue.is_from_elsewhere(job)]

    def show_last_failure(self) -> None:
        """Why the newest came to nothing, until it is forgotten or another one starts."""
        jobs = self.jobs()
        if jobs and jobs[-1].state == "failed":
            error = jobs[-1].error.removeprefix("Error: ")
            st.warning(literal(f"The last {self.kind} failed. {error}"))


def say_under_way(jobs: Sequence[Job], doing: str) -> None:
    """A line on jobs that are active: whether one of them runs, or all wait. doing: such as
    "Computing"."""
    if any(job.state == "running" for job in jobs):
        st.caption(f"{doing} them now.")
    else:
        st.caption(f"{doing} them is queued: its card says how many jobs are ahead.")


def job_button(label: str, seconds: float | None = None, **options: Any) -> bool:
    """A button for a job. seconds: how long it takes, where that is known; options: of `st.button`.
    Whether it was clicked."""
    if seconds is not None:
        label = f"{label} (about {seconds_text(seconds)})"
    return st.button(label, **options)


def answer(job: Job | None) -> None:
    """Draw the page again, with the job on it. A toast says then what was queued, since the job's
    card may be out of sight."""
    st.session_state["_answered"] = st.session_state["_queued"] = job and job.job_id
    st.rerun()


def say_what_was_queued() -> None:
    """The toast, once: by the frame of every page."""
    job = _job(st.session_state.pop("_answered", None))
    if job is not None and explorer().queue.is_from_elsewhere(job):
        st.toast(f"**{literal(job_title(job))}** was queued elsewhere: let it run on Train.")
    elif job is not None:
        ahead = explorer().queue.ahead(job) if job.state == "queued" else 0
        how = f"is queued: {ahead:,} ahead" if ahead else "starts now"
        st.toast(f"**{literal(job_title(job))}** {how}.", duration="long")


def last_queued(*kinds: str) -> Job | None:
    """The job that was queued last on these pages, while it is active and of one of some kinds."""
    job = _job(st.session_state.get("_queued"))
    return job if job is not None and job.is_active and job.kind in kinds else None


def _job(job_id: str | None) -> Job | None:
    """None without one, and where it has been forgotten."""
    if job_id is None:
        return None
    return next((job for job in explorer().queue.jobs() if job.job_id == job_id), None)
