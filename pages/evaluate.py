"""Evaluate: what dictionaries explain and what they cost the model, by L0, side by side."""

import pandas as pd
import streamlit as st

from itda_core.runs.results import read_evaluation
from pages.components.cached import loaded_run
from pages.components.evaluate.curves import show_curves
from pages.components.evaluate.details import show_details
from pages.components.evaluate.looked_at import LOOKED_AT, follow_point
from pages.components.evaluate.offer import EVALUATION, being_evaluated, offer_evaluation
from pages.components.evaluate.point import show_point
from pages.components.evaluate.probing import show_probing
from pages.components.evaluate.table import show_table
from pages.components.explorer import explorer
from pages.components.frame import nothing_yet, page
from pages.components.job_panel import show_ended_jobs, watch_active_jobs
from pages.components.run_names import run_label, short_labels
from pages.components.url import follow_url_list, write_url

_MAX_AT_FIRST = 8


def show() -> None:
    st.title("Evaluate")
    runs = explorer().store.runs.table()
    if runs.empty:
        nothing_yet()
        return
    st.caption(
        "Reconstructions are compared with the activations, and put in their place to measure how "
        "much worse the model predicts, on prompts that were held out from training."
    )
    evaluated = explorer().store.runs.evaluations()
    chosen = _choose_runs(runs, evaluated)
    watch_active_jobs()
    if chosen.empty:
        st.info("Choose at least one dictionary.")
        return
    evaluations = evaluated[evaluated["run_id"].isin(chosen["run_id"])]
    is_evaluated = chosen["run_id"].isin(evaluations["run_id"])
    offer_evaluation(chosen[~is_evaluated])
    EVALUATION.show_last_failure()
    if not evaluations.empty:
        _show_evaluations(chosen[is_evaluated], evaluations)
    _show_ended()


def _choose_runs(runs: pd.DataFrame, evaluated: pd.DataFrame) -> pd.DataFrame:
    """The dictionaries to compare, as rows of `runs`; at first those that were evaluated."""
    ids = runs["run_id"].tolist()
    evaluated_ids = set(evaluated["run_id"])
    first = [run_id for run_id in ids if run_id in evaluated_ids] or ids
    follow_url_list("compare", ids, first[:_MAX_AT_FIRST])
    quick_ids = set(evaluated[evaluated["quick"]]["run_id"])
    labels = {row.run_id: run_label(row) for row in runs.itertuples()}
    labels |= {run_id: f"{labels[run_id]} · quick run" for run_id in quick_ids}
    in_jobs = being_evaluated()
    labels |= {
        run_id: f"{labels[run_id]} · {'in the queue' if run_id in in_jobs else 'not evaluated'}"
        for run_id in ids
        if run_id not in evaluated_ids
    }
    chosen = st.multiselect(
        "Dictionaries",
        ids,
        format_func=labels.get,
        key="compare",
        placeholder="Choose dictionaries",
    )
    write_url("compare", ",".join(chosen) if chosen else None)
    others = len(set(ids) - evaluated_ids - set(chosen))
    if others:
        it = "it" if others == 1 else "them"
        st.caption(f"{others:,} more can be evaluated: choose {it} in the list.")
    return runs[runs["run_id"].isin(chosen)]


def _show_evaluations(runs: pd.DataFrame, evaluations: pd.DataFrame) -> None:
    quick_ids = set(evaluations[evaluations["quick"]]["run_id"])
    told = short_labels(runs, explorer().names, explorer().store.runs.table())
    labels = {
        run_id: label + (" · quick run" if run_id in quick_ids else "")
        for run_id, label in told.items()
    }
    saes = runs[runs["kind"] == "sae"]["run_id"]
    evaluations = evaluations.assign(
        dictionary=evaluations["run_id"].map(labels), is_sae=evaluations["run_id"].isin(saes)
    ).reset_index(drop=True)
    follow_point(evaluations)
    directories = dict(zip(runs["run_id"], runs["directory"], strict=True))
    run = loaded_run(directories[st.session_state[LOOKED_AT]])
    result = read_evaluation(run) or {}
    fvu = show_curves(runs, evaluations, run, result)
    show_point(evaluations, run, result, fvu)
    show_table(runs, evaluations)
    show_details(runs, labels)
    show_probing(run)


def _show_ended() -> None:
    ended = {job.kind for job in explorer().queue.jobs() if not job.is_active}
    for kind, title in (("evaluation", "Past evaluations"), ("probing", "Past probings")):
        if kind in ended:
            st.subheader(title)
            show_ended_jobs(kind, "")


with page("Evaluate"):
    show()
