"""Sparse probing of one dictionary on a page: what it found, and the button that asks for it."""

from typing import Any

import pandas as pd
import streamlit as st

from itda_core.corpus.corpus import LABELLED
from itda_core.errors import RunError
from itda_core.jobs.measure_seconds import probing_seconds
from itda_core.jobs.submissions import submit_probing
from itda_core.runs.results import PROBING_FILE, read_probing
from itda_core.runs.run import Run
from pages.components.cached import loaded_run
from pages.components.device_choice import ask_for_device, likely_device
from pages.components.explorer import explorer
from pages.components.job_offer import JobOffer, answer, job_button
from pages.components.run_names import is_made_elsewhere
from pages.components.text import escaped, literal, token_label
from pages.components.upload import corpus_name

_HELP = (
    "The prompts carry labels, such as the party of the speaker. How well can one tell the label "
    "from 1, 2 or 5 latents? A prompt's latents are averaged over its tokens; those that differ "
    "most between the two answers are taken, and a logistic regression on them guesses the label. "
    "Guessing by chance is right half the time: 50 %. Speeches are tested whole, by a regression "
    "that saw none of their paragraphs. For comparison the same is done with the components of the "
    "activations, without any dictionary. In brackets: the 95 % interval, by resampling speeches."
)
_KINDS = {"latents": "latents", "activations": "components of the activation"}


def show_probing(run: Run) -> None:
    """The section on one dictionary: its result, or how to come by one."""
    st.subheader("Sparse probing", help=_HELP)
    path = run.directory / PROBING_FILE
    written = path.stat().st_mtime_ns if path.exists() else None
    result = None
    try:
        result = _read(str(run.directory), written)
    except RunError as error:  # it can be made anew below
        st.warning(literal(str(error)))
    if result is not None:
        _show_result(run, result)
    offer = JobOffer("probing", run.run_id)
    offer.show_last_failure()
    _offer(offer, run, is_again=result is not None)


@st.cache_data(max_entries=64, show_spinner=False)
def _read(directory: str, written: int | None) -> dict[str, Any] | None:  # noqa: ARG001 (the key)
    return read_probing(loaded_run(directory))


def _show_result(run: Run, result: dict[str, Any]) -> None:
    on = result["measured_on"]
    prompts = f"{on['prompts']:,} {'held-out ' if on['held_out'] else ''}prompts of "
    prompts += corpus_name(on["corpus"])
    when = f"{result['created'][:16].replace('T', ' ')} UTC"
    st.caption(
        literal(f"{result['tokens']:,} tokens of {prompts} · {when}")
        + " · Share of labels predicted correctly; 50 % is chance."
    )
    st.dataframe(accuracies(result["results"]), placeholder="–", hide_index=True, key="accuracies")
    st.markdown(
        "**Selected latents**, by their source tokens",
        help="The five whose means differ most between the two answers, the first one first. The "
        "arrow says which answer has more of it.",
    )
    for row in result["results"]:
        if row["features"] == "latents" and row["k"] == 5:
            _show_chosen(run, row)


def accuracies(results: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a label and kind of features, a column a number of them: "58 % (52–63)"."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in results:
        label = f"{row['task']}: {row['positive']} or {row['negative']}"
        cells = rows.setdefault((label, row["features"]), {})
        interval = f"{100 * row['low']:.0f}–{100 * row['high']:.0f}"
        cells[str(row["k"])] = f"{row['accuracy']:.0%}".replace("%", " %") + f" ({interval})"
    return pd.DataFrame(
        [
            {"label": label, "features": _KINDS[features], **cells}
            for (label, features), cells in rows.items()
        ]
    )


def _show_chosen(run: Run, row: dict[str, Any]) -> None:
    task, *places = st.columns([2, *[1] * len(row["chosen"])], vertical_alignment="center")
    task.markdown(literal(row["task"]))
    for place, latent in zip(places, row["chosen"], strict=True):
        answer = row["positive"] if latent["difference"] > 0 else row["negative"]
        place.page_link(
            "pages/latents.py",
            label=f"{escaped(token_label(latent['token']))} → {literal(answer)}",
            query_params={"run": run.run_id, "latent": str(latent["feature"])},
            help=literal(
                f"Latent {latent['feature']}: mean coefficient of {row['positive']} less that of "
                f"{row['negative']} {latent['difference']:+.3g}."
            ),
        )


def _offer(offer: JobOffer, run: Run, is_again: bool) -> None:
    """A button, or why there is none."""
    name = run.config.corpus.name
    if name not in LABELLED:
        if not is_again:
            st.info(
                f"The corpus {literal(corpus_name(name))} has no labels to ask for. Those of "
                f"{', '.join(sorted(LABELLED))} do: `probe RUN --save --corpus sotu` on the "
                "command line asks what its latents tell of them."
            )
        return
    if is_made_elsewhere(run):
        if not is_again:
            st.info(
                "This dictionary was made elsewhere, and what was held out of its texts can't be "
                "told here. On the command line "
                f"{literal(f'probe RUN --save --corpus {name}')} takes all prompts."
            )
        return
    if offer.active():
        st.caption("Its probing is queued.")
        return
    device = ask_for_device("probing_device")
    label = "Probe again" if is_again else "Probe"
    likely = likely_device(device)
    seconds = None if likely.trouble else _seconds(str(run.directory), likely.name)
    if job_button(label, seconds, help="Runs in the background; you can leave this page."):
        answer(submit_probing(explorer().queue, [run], device))


@st.cache_data(ttl=300, show_spinner=False)
def _seconds(directory: str, device: str) -> float | None:
    run = loaded_run(directory)
    return probing_seconds(run.config, run.layer, run.metrics["atoms"], device)
