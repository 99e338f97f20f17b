"""Evaluate: what dictionaries explain and what they cost the model, by L0, side by side."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from itda_core.evaluation.token_errors import COUNTED_TOKENS
from itda_core.runs.results import read_evaluation
from itda_core.runs.run import Run
from pages.components.cached import loaded_run
from pages.components.charts.camera import picture_config
from pages.components.charts.evaluation import (
    Reference,
    density_histogram,
    error_bars,
    pareto,
)
from pages.components.downloads import offer_downloads
from pages.components.evaluate.columns import COLUMNS, MASSIVE_HELP, columns, shown
from pages.components.evaluate.offer import EVALUATION, being_evaluated, offer_evaluation, submit
from pages.components.evaluate.probing import show_probing
from pages.components.evaluate.references import about, autoencoders_of, references
from pages.components.evaluate.verdict import (
    MEDIAN_MEANS,
    NOT_KEPT,
    beside,
    on_different_texts,
    quick_note,
    says,
    verdict,
)
from pages.components.explorer import explorer
from pages.components.frame import nothing_yet, page
from pages.components.job_panel import show_ended_jobs, watch_active_jobs
from pages.components.run_names import run_label, short_labels
from pages.components.text import literal
from pages.components.upload import corpus_name
from pages.components.url import follow_url, follow_url_list, write_url

_MAX_AT_FIRST = 8
_LOOKED_AT = "evaluated_run"
"""In the session: other pages go on with the dictionary that they were at"""
_METRICS = (
    ("median_unexplained", "cosine", "norm_ratio", "mean_latents"),
    ("ce_loss_score", "model_cross_entropy", "cross_entropy", "zeros_cross_entropy", "kl"),
)
"""The numbers of a point: of the reconstruction, behind the FVU that is chosen, and of what it
costs the model"""


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
    _follow_point(evaluations)
    directories = dict(zip(runs["run_id"], runs["directory"], strict=True))
    run = loaded_run(directories[st.session_state[_LOOKED_AT]])
    result = read_evaluation(run) or {}
    fvu = _show_pareto(runs, evaluations, run, result)
    _show_point(evaluations, run, result, fvu)
    _show_table(runs, evaluations)
    _show_details(runs, labels)
    show_probing(run)


def _follow_point(evaluations: pd.DataFrame) -> None:
    """The dictionary and L0 that are looked at closely: of the URL, or those last clicked."""
    follow_url("run", list(dict.fromkeys(evaluations["run_id"])), _LOOKED_AT)
    of_run = evaluations[evaluations["run_id"] == st.session_state[_LOOKED_AT]]
    l0s = of_run["l0"].tolist()
    follow_url("at_l0", [l0s[-1], *l0s[:-1]])  # its own comes first
    write_url("run", st.session_state[_LOOKED_AT], _LOOKED_AT)
    write_url("at_l0", st.session_state["at_l0"])


def _look_at(run_id: str, l0: int) -> None:
    st.session_state[_LOOKED_AT], st.session_state["at_l0"] = run_id, int(l0)


def _show_pareto(
    runs: pd.DataFrame, evaluations: pd.DataFrame, run: Run, result: dict[str, Any]
) -> str:
    """run, result: the dictionary that is looked at, and its evaluation. Which FVU is shown."""
    st.subheader("What each L0 gives")
    fvu = "fvu"
    if (evaluations["massive_tokens"] > 0).any():
        without = st.toggle(
            "FVU without massive activations", value=True, key="without", help=MASSIVE_HELP
        )
        fvu = "fvu_without_massive" if without else "fvu"
    name = evaluations[evaluations["run_id"] == run.run_id].iloc[0]["dictionary"]
    others = autoencoders_of(run, result) if result else []
    grey = {of: references(of, result, others, name) for of in (fvu, "ce_loss_score")}
    left, right = st.columns(2, gap="large")
    with left:
        _show_curve(evaluations, fvu, "FVU: variance unexplained", "lower", grey[fvu])
    with right:
        if not evaluations["ce_loss_score"].isna().all():
            title, of = "CE loss score", "ce_loss_score"
            _show_curve(evaluations, of, title, "higher", grey[of])
        for reason in _why_no_losses(tuple(runs["directory"]), _times(evaluations)):
            st.info(f"No CE loss score. {literal(reason)}")
    if result:
        st.caption(literal(about(result, others)))
    if said := on_different_texts(
        evaluations.assign(corpus=evaluations["corpus"].map(corpus_name))
    ):
        st.caption(literal(said))
    return fvu


def _show_curve(
    evaluations: pd.DataFrame,
    measure: str,
    title: str,
    better: str,
    beside_them: Sequence[Reference],
) -> None:
    points = evaluations.rename(columns={measure: "value", "dictionary": "label"})
    points = points[["run_id", "label", "is_sae", "l0", "mean_l0", "value"]].dropna()
    point = (st.session_state[_LOOKED_AT], st.session_state["at_l0"])
    key = f"curve_{measure}"

    def choose() -> None:
        clicked = st.session_state[key]["selection"]["points"]
        if clicked and "customdata" in clicked[0]:  # what dictionaries are compared with has none
            run_id, l0, _ = clicked[0]["customdata"]
            _look_at(run_id, l0)

    st.plotly_chart(
        pareto(points, title, better, point, beside_them),
        on_select=choose,
        selection_mode="points",
        config=picture_config(f"{measure}-by-l0"),
        key=key,
    )


def _show_point(evaluations: pd.DataFrame, run: Run, result: dict[str, Any], fvu: str) -> None:
    """The point that is looked at: what it says, its numbers, and where to go with it."""
    run_id, l0 = st.session_state[_LOOKED_AT], st.session_state["at_l0"]
    row = evaluations[(evaluations["run_id"] == run_id) & (evaluations["l0"] == l0)].iloc[0]
    with st.container(border=True):
        head, browse, decompose = st.columns([4, 1, 1], vertical_alignment="center")
        head.markdown(f"**{literal(row['dictionary'])}**")
        browse.page_link("pages/latents.py", label="Browse latents", query_params={"run": run_id})
        decompose.page_link("pages/decompose.py", label="Decompose", query_params={"run": run_id})
        st.markdown(literal(verdict(row, fvu == "fvu_without_massive")))
        if row["quick"]:
            st.markdown(f":orange[{literal(quick_note(int(row['tokens'])))}]")
        if not pd.isna(row["median_unexplained"]):
            st.caption(MEDIAN_MEANS)
        pca = result.get("pca", {}).get(fvu, [])
        others = autoencoders_of(run, result) if result else []
        if said := beside(l0, row["mean_l0"], pca, others, fvu):
            st.markdown(literal(said[0].upper() + said[1:]))
        for names in ((fvu, *_METRICS[0]), _METRICS[1]):
            for place, name in zip(st.columns(len(names)), names, strict=True):
                place.metric(COLUMNS[name].label, shown(name, row[name]), help=COLUMNS[name].help)
        if pd.isna(row["cross_entropy"]) and not pd.isna(row["ce_loss_score"]):
            st.caption(NOT_KEPT)
        _show_others(evaluations, run_id, l0, fvu)
        st.caption("Click a point of the curves, or choose a row below, to look at another.")


def _show_others(evaluations: pd.DataFrame, run_id: str, l0: int, fvu: str) -> None:
    """The same sentence of the other dictionaries that were measured at this L0."""
    others = evaluations[(evaluations["run_id"] != run_id) & (evaluations["l0"] == l0)]
    if others.empty:
        return
    with st.expander("The other dictionaries at this L0"):
        for _, row in others.iterrows():
            sentence = literal(says(row, fvu == "fvu_without_massive"))
            st.markdown(f"**{literal(row['dictionary'])}** {sentence}")


def _show_table(runs: pd.DataFrame, evaluations: pd.DataFrame) -> None:
    table = evaluations.assign(
        unused_share=100 * evaluations["unused_share"],
        corpus=[corpus_name(name) for name in evaluations["corpus"]],
    )

    def choose() -> None:
        rows = st.session_state["measures"]["selection"]["rows"]
        if rows:
            _look_at(*table.iloc[rows[0]][["run_id", "l0"]])

    st.dataframe(
        table,
        column_order=["dictionary", *COLUMNS],
        column_config=columns(),
        placeholder="–",
        hide_index=True,
        on_select=choose,
        selection_mode="single-row",
        key="measures",
    )
    _offer_files(runs, evaluations)


def _times(evaluations: pd.DataFrame) -> tuple[str, ...]:
    """When each was made: what is known of them is known until one is made anew."""
    return tuple(evaluations.drop_duplicates("run_id")["created"])


def _offer_files(runs: pd.DataFrame, evaluations: pd.DataFrame) -> None:
    rows, everything, _ = st.columns([1, 1, 4])
    times = _times(evaluations)
    with rows.popover("Export the table", width="stretch"):
        st.markdown("**A row a dictionary and L0**, with all measures")
        about = {"runs": runs["run_id"].tolist(), "times": times}
        table = evaluations.drop(columns=["dictionary"])
        offer_downloads(table, about, "evaluations-by-l0", "evaluations_file")
    everything.download_button(
        "Download as JSON",
        lambda: _as_json(tuple(runs["directory"]), times),
        file_name="evaluations.json",
        mime="application/json",
        on_click="ignore",
        width="stretch",
        help="Everything that was measured, errors of single tokens and densities included.",
    )


@st.cache_data(max_entries=8, show_spinner=False)
def _why_no_losses(directories: tuple[str, ...], times: tuple[str, ...]) -> list[str]:  # noqa: ARG001
    """Why evaluations have no cross-entropy, each reason once. times: part of the key."""
    results = [read_evaluation(loaded_run(directory)) or {} for directory in directories]
    reasons = [
        result.get("why_no_losses") or "The model predicts no next token."
        for result in results
        if result.get("by_l0") and all(row["ce_loss_score"] is None for row in result["by_l0"])
    ]
    return list(dict.fromkeys(reasons))


@st.cache_data(max_entries=8, show_spinner=False)
def _as_json(directories: tuple[str, ...], times: tuple[str, ...]) -> str:  # noqa: ARG001 (part of the key)
    contents = [read_evaluation(loaded_run(directory)) for directory in directories]
    return json.dumps(contents, ensure_ascii=False, indent=1)


def _show_details(runs: pd.DataFrame, labels: dict[str, str]) -> None:
    """Densities and errors of single tokens of one dictionary."""
    st.subheader("One dictionary")
    choice, again = st.columns([4, 1], vertical_alignment="bottom")
    run_id = choice.selectbox(
        "Dictionary", runs["run_id"].tolist(), format_func=labels.get, key=_LOOKED_AT
    )
    directory = runs[runs["run_id"] == run_id].iloc[0]["directory"]
    if again.button("Evaluate again", width="stretch"):
        submit([directory])
    result = read_evaluation(loaded_run(directory))
    if result is None:
        st.info("Its evaluation has just been removed.")
        return
    _show_measured_on(result)
    measure = st.segmented_control(
        "Error shown as",
        ["fvu", "cosine"],
        format_func={"fvu": "variance unexplained", "cosine": "cosine"}.get,
        default="fvu",
        required=True,
        key="measure",
        help="Both at the dictionary's largest L0. Σ‖x − x̂‖² / Σ‖x − x̄‖² over the tokens of a bar, "
        "with x̄ the mean of all tokens; or the mean of cos(x, x̂).",
    )
    _show_charts(result, measure)


def _show_measured_on(result: dict) -> None:
    on = result["measured_on"]
    prompts = f"{on['prompts']:,} {'held-out ' if on['held_out'] else ''}prompts of "
    prompts += corpus_name(on["corpus"])
    parts = [
        *(["quick run"] if result.get("quick") else []),
        f"{result['tokens']:,} tokens of {prompts}",
        f"{result['massive_tokens']:,} of them massive activations",
        f"{result['unused_share']:.1%} of the latents dead",
        f"{result['created'][:16].replace('T', ' ')} UTC",
    ]
    st.caption(literal(" · ".join(parts)))


def _show_charts(result: dict, measure: str) -> None:
    errors = result["errors"]
    by_position, by_norm = st.columns(2, gap="large")
    by_frequency, density = st.columns(2, gap="large")
    with by_position:
        st.markdown("**By position in the prompt**")
        bars = error_bars(errors["position"], measure, "position, the first token being 0")
        st.plotly_chart(bars, config=picture_config("by-position"), key="by_position")
    with by_norm:
        st.markdown("**By norm of the activation**", help=f"Tenths of the tokens. {MASSIVE_HELP}")
        bins, special = errors["norm"] + errors["massive"], "massive" if errors["massive"] else ""
        bars = error_bars(bins, measure, "‖x‖", special)
        st.plotly_chart(bars, config=picture_config("by-norm"), key="by_norm")
    with by_frequency:
        st.markdown(
            "**By frequency of the token**",
            help=f"Counted in the first {COUNTED_TOKENS:,} tokens of the prompts that are not held "
            "out.",
        )
        if errors["frequency"]:
            title = "times it occurs in the training part of the corpus"
            bars = error_bars(errors["frequency"], measure, title)
            st.plotly_chart(bars, config=picture_config("by-frequency"), key="by_frequency")
        else:
            st.info("The corpus it was trained on can't be read any more.")
    with density:
        st.markdown("**How often latents are used**", help="At the dictionary's largest L0.")
        bars = density_histogram(result["density"])
        st.plotly_chart(bars, config=picture_config("density"), key="density")


def _show_ended() -> None:
    ended = {job.kind for job in explorer().queue.jobs() if not job.is_active}
    for kind, title in (("evaluation", "Past evaluations"), ("probing", "Past probings")):
        if kind in ended:
            st.subheader(title)
            show_ended_jobs(kind, "")


with page("Evaluate"):
    show()
