"""Jobs on a page: live progress, cancel, resume, logs."""

import time
from collections import Counter

import streamlit as st

from itda_core.digests import digest
from itda_core.jobs.job import Job
from itda_core.progress import MIN_FRACTION, PREPARING
from pages.components.explorer import explorer
from pages.components.file_reading import on_the_page
from pages.components.frame import errors_as_sentences
from pages.components.job_offer import answer
from pages.components.job_title import job_title
from pages.components.run_names import run_label
from pages.components.text import literal, seconds_text
from pages.components.upload import as_uploaded

_STAGES = {
    "loading": "Loading the model (half a minute longer where it is unpacked first)",
    "opening": "Opening the folder of activations",
    "reading": "Reading the corpus",
    "compiling": "Preparing the pursuit (half a minute longer where it is compiled first)",
    "checking": "Checking what was kept",
    "training": "Running the model over the texts",
    "moving": "Reading the source tokens of the latents",
    "choosing": "Choosing the atoms",
    "encoding": "Encoding the explored tokens",
    "evaluating": "Measuring",
    "capturing": "Running the models over the same texts",
    "comparing": "Comparing the layers",
    "averaging": "Averaging the latents over each labelled prompt",
    "probing": "Fitting probes on a few latents",
    "mapping": "Laying out the latents",
    "scoring": "Finding strong uses and scoring the latents",
    "done": "Done",
}
_STAGES_OF = {
    "compare-latents": {
        "encoding": "Running the models over the same texts",
        "comparing": "Comparing the latents one by one",
    }
}
"""By command, stages in which it does something else"""
_LINKED = 8
"""Dictionaries that a job has made, as many as are linked"""
_TOLD_AT_ONCE = 8
"""Trainings of a list that are named while they run"""
_LET_IN = 5
"""Jobs from elsewhere that are shown at once, each with its command"""
_SHOWN = 100_000
"""Characters of a job's settings"""
_SIGNS = {"done": "✓", "failed": "✗", "cancelled": "–", "interrupted": "–"}


def watch_active_jobs(run_id: str = "") -> bool:
    """Show what is running or waiting and keep it up to date; true where there is anything. run_id:
    of a page about one run, which shows them where one of them is about it.

    When a run or a result is there the whole page is drawn again, so that it is on it.
    """
    queue = explorer().queue
    active, elsewhere = queue.active(), _to_let_in(run_id)
    is_about = any(not run_id or run_id in job.run_ids for job in active)
    # The place is there in any case. Else what stands below moves on by one where jobs appear, and
    # the browser, which builds it anew then, can't keep in place what one looks at.
    with st.container(key="jobs"):
        if not is_about and not elsewhere:
            return False
        st.session_state["_active_seen"] = _ids(active, elsewhere)
        st.session_state["_stored_seen"] = explorer().store.runs.state()
        _panel(run_id)
    return is_about


def _to_let_in(run_id: str) -> list[Job]:
    """Those from elsewhere; none on a page about one run, since nobody has looked at them yet."""
    return [] if run_id else explorer().queue.from_elsewhere()


def _ids(active: list[Job], elsewhere: list[Job]) -> list[list[str]]:
    return [sorted(job.job_id for job in jobs) for jobs in (active, elsewhere)]


@st.fragment(run_every=2.0)
def _panel(run_id: str) -> None:
    with errors_as_sentences():
        _show_panel(run_id)


def _show_panel(run_id: str) -> None:
    active, elsewhere = explorer().queue.active(), _to_let_in(run_id)
    is_new = explorer().store.runs.state() != st.session_state["_stored_seen"]
    # A probing or a map leaves nothing in the database: only its end says that something is new.
    if is_new or _ids(active, elsewhere) != st.session_state["_active_seen"]:
        st.rerun()
    waiting = [job for job in active if job.state == "queued"]
    for job in active:
        if job.state != "queued":
            with st.container(border=True):
                _show_running(job)
    if waiting:
        with st.container(border=True, gap="xxsmall"):
            for job in waiting:
                _show_title(job, _queued(job))
    if elsewhere:
        with st.container(border=True):
            _show_elsewhere(elsewhere)


def _show_elsewhere(jobs: list[Job]) -> None:
    """Jobs that came with the folder: what each would run, and whether it may."""
    what = "This job was" if len(jobs) == 1 else f"These {len(jobs):,} jobs were"
    st.markdown(
        f"{what} queued in another folder, on another machine or by an earlier version, or "
        "changed since. Look at a command before you let it run: it can write files anywhere "
        "that you can."
    )
    for job in jobs[:_LET_IN]:
        _show_title(job)
        st.code(explorer().queue.command_line(job), language=None, wrap_lines=True)
        if settings := explorer().queue.settings(job):
            with st.expander("Its settings"):
                st.code(settings[:_SHOWN], language=None, wrap_lines=True, height=300)
    if len(jobs) > _LET_IN:
        st.caption(f"And {len(jobs) - _LET_IN:,} more, shown when these are decided.")


def _show_title(job: Job, told: str = "", is_over: bool = False) -> None:
    """Its name, what is told of it beside, and the buttons that let it run and cancel it."""
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{literal(job_title(job))}**", width="content")
            if told:
                st.caption(told, width="content")
        with st.container(horizontal=True, width="content"):
            queue = explorer().queue
            is_asked = queue.is_from_elsewhere(job)
            # Of another button a click says nothing: it was of what the job did when it was drawn.
            if is_asked and st.button("Let it run", key=f"let_in_{job.job_id}_{_does(job)}"):
                queue.let_in(job)
                st.rerun()
            if not is_over and st.button("Cancel", key=f"cancel_{job.job_id}"):
                queue.cancel(job.job_id)
                st.rerun()


def _does(job: Job) -> str:
    """Names what a job would do, as it is shown."""
    queue = explorer().queue
    return digest([queue.command_line(job), queue.settings(job)])


def _show_running(job: Job) -> None:
    progress = explorer().queue.progress(job) if job.state == "running" else None
    # What it made is being taken in by then.
    _show_title(job, is_over=(progress or {}).get("stage") == "done")
    if progress is None:
        st.progress(0.0, f"Starting{_on(job)}")
        return
    st.progress(min(1.0, progress["fraction"]), _headline(progress, job))
    if progress["total_tokens"]:
        st.caption(_details(progress))
    elif progress.get("trainings"):
        st.caption(_list_details(progress))


def _queued(job: Job) -> str:
    """ "Queued: 1 ahead", what it waits for where it is more than its turn, and why more may come
    to be ahead."""
    queue = explorer().queue
    ahead, waits_for = queue.ahead(job), queue.waits_for(job)
    told = f"Queued: {ahead:,} ahead"
    if waits_for:
        told += f", waiting for {literal(waits_for)}"
    return told + (" (short jobs go first)." if ahead and not job.is_short else ".")


def _headline(progress: dict, job: Job) -> str:
    stages = _STAGES | _STAGES_OF.get(job.command, {})
    parts = [stages.get(progress["stage"], "Working")]
    if progress.get("layer") is not None:
        parts[0] += f" of layer {progress['layer']}"
    parts += [_on(job).strip()] if job.where else []
    if progress["stage"] == "done":
        return " · ".join(parts)
    is_known = progress["seconds_left"] and progress.get("fraction", 1.0) >= MIN_FRACTION
    if is_known and progress["stage"] not in PREPARING:
        parts.append(f"about {seconds_text(progress['seconds_left'])} left")
    elif job.started:
        parts.append(f"{seconds_text(time.time() - job.started)} so far")
    return " · ".join(parts)


def _on(job: Job) -> str:
    """ " on cuda:1", or the cluster; empty where it goes without saying."""
    return f" on {literal(job.where)}" if job.where else ""


def _details(progress: dict) -> str:
    parts = [f"{progress['tokens']:,} of {progress['total_tokens']:,} tokens"]
    if asked := progress.get("asked_tokens"):
        parts[0] += f", all there are of the {asked:,} requested"
    if progress.get("tokens_per_second"):
        parts.append(f"{progress['tokens_per_second']:,.0f} tokens/s")
    if progress.get("run_id"):
        parts.append(progress["run_id"])
    chosen = {layer: atoms for layer, atoms in progress.get("atoms", {}).items() if atoms}
    for layer, atoms in chosen.items():
        error = progress["mean_error"].get(layer)
        mean_error = f", mean error {error:.3f}" if error is not None else ""
        parts.append(f"layer {layer}: {atoms:,} atoms{mean_error}")
    parts += [f"{count:,} {what}" for what, count in progress.get("skipped", {}).items()]
    return literal(" · ".join(parts))


def _list_details(progress: dict) -> str:
    """Of a list: how many are done, and what runs where. Of a long one the line names some."""
    trainings = progress["trainings"]
    states = Counter(progress.get("states") or [one["state"] for one in trainings])
    parts = [f"{states['done']:,} of {states.total():,} trainings done"]
    parts += [f"{states['failed']:,} failed"] if states["failed"] else []
    running = [one for one in trainings if one["state"] == "running"]
    for one in running[:_TOLD_AT_ONCE]:
        where = f" on {one['where']}" if one["where"] else ""
        parts.append(f"{one['title']}{where}: {one['fraction']:.0%}")
    others = max(states["running"], len(running)) - _TOLD_AT_ONCE
    return literal(" · ".join([*parts, *([f"{others:,} more run"] if others > 0 else [])]))


def show_ended_jobs(kind: str, none_yet: str) -> None:
    """The jobs of one kind that are over, newest first, with their logs and what can be done;
    none_yet: what to say where there are none."""
    jobs = explorer().queue.jobs()
    ended = [job for job in jobs if job.kind == kind and not job.is_active]
    if not ended:
        st.caption(none_yet)
    for job in reversed(ended):
        sign = _SIGNS.get(job.state, "")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.ended or job.created))
        with st.expander(f"{sign} {literal(job_title(job))} · {job.state} · {when}"):
            _show_ended(job)


def _show_ended(job: Job) -> None:
    queue = explorer().queue
    if job.error:
        message = as_uploaded(job.error.removeprefix("Error: "))
        st.error(literal(on_the_page(message)))
    _link_runs(queue.progress(job) or {})
    buttons = st.container(horizontal=True)
    if job.state != "done":
        label = "Resume" if job.keeps_checkpoints and job.state != "failed" else "Try again"
        if buttons.button(label, key=f"resume_{job.job_id}"):
            answer(queue.resume(job.job_id))
    if buttons.button("Forget", key=f"forget_{job.job_id}"):
        queue.forget(job.job_id)
        st.rerun()
    st.caption("Log")
    log = queue.log(job)[-20_000:] or "(nothing printed)"
    st.code(log, language=None, height=200, wrap_lines=True)


def _link_runs(finished: dict) -> None:
    """Links to the dictionaries that a job has made, as far as they are there. finished: its last
    progress."""
    runs = explorer().store.runs.table()
    made = runs[runs["run_id"].isin(finished.get("finished", []))]
    for run in made.head(_LINKED).itertuples():
        st.page_link(
            "pages/latents.py",
            label=f"Browse {literal(run_label(run))}",
            query_params={"run": run.run_id},
        )
    if len(made) > _LINKED:
        st.caption(f"And {len(made) - _LINKED:,} more: Overview lists all.")
