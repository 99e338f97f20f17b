"""Which two dictionaries are compared latent by latent, and what is offered before it is known, or
known of strong uses."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from itda_core.errors import ComparisonError
from itda_core.glossary import GLOSSARY
from itda_core.jobs.compare_again import submit_comparison_again
from itda_core.jobs.job import Job
from itda_core.jobs.kept import KeptJobs
from itda_core.jobs.submissions import submit_latent_comparison
from itda_core.runs.latent_comparisons import (
    LatentComparison,
    kept_comparison,
    latent_comparisons_folder,
)
from itda_core.runs.run import Run
from pages.components.cached import loaded_dictionary, loaded_run
from pages.components.device_choice import ask_for_device, likely_device
from pages.components.explorer import explorer
from pages.components.job_offer import JobOffer, answer, job_button, say_under_way
from pages.components.run_names import choose_run
from pages.components.text import literal
from pages.components.url import keep, linked_switch

_ENOUGH_SOURCES = 20
"""In common; the median latent of fewer says little of two dictionaries"""
_COMPARISON = JobOffer("comparison of latents")


@dataclass(frozen=True)
class RunPair:
    """Two rows of Store.runs.table()."""

    a: tuple
    b: tuple

    @property
    def run_ids(self) -> tuple[str, str]:
        return self.a.run_id, self.b.run_id

    @property
    def runs(self) -> list:
        return [loaded_run(run.directory) for run in (self.a, self.b)]


def ask_for_pair(runs: pd.DataFrame) -> RunPair | None:
    """Two dictionaries, which follow the link and write it; None where there is but one. runs:
    Store.runs.table()."""
    if len(runs) < 2:
        st.info(
            "There is one dictionary only. Move it to another model or layer: its latents are the "
            "same there."
        )
        st.page_link("pages/train.py", label="Move it on the Train page")
        return None
    pairs = _pairs_in_order(runs)
    left, right = st.columns(2)
    with left:
        a = choose_run(_in_order(runs, pairs["run_a"].unique()), "Dictionary A", "left")
    with right:
        partners = pairs.loc[pairs["run_a"] == a.run_id, "run_b"]
        b = choose_run(_in_order(runs, partners), "Dictionary B", "right")
    return RunPair(a, b)


def likely_partners(run, runs: pd.DataFrame) -> pd.DataFrame:
    """Other dictionaries, the one to compare a dictionary with first: `likely_pairs` says in which
    order. run: a row of Store.runs.table(); runs: this table, or some of its rows with that one."""
    pairs = _pairs_in_order(runs)
    return _in_order(runs, pairs.loc[pairs["run_a"] == run.run_id, "run_b"])


def _pairs_in_order(runs: pd.DataFrame) -> pd.DataFrame:
    in_common = _sources_in_common(tuple(zip(runs["run_id"], runs["created"], strict=True)))
    return likely_pairs(runs, explorer().store.namesakes.comparisons(), in_common)


@st.cache_data(max_entries=8, show_spinner=False)
def _sources_in_common(runs: tuple) -> pd.DataFrame:  # noqa: ARG001 (the key)
    """Of all runs, by their ids and times: they keep their sources, whatever else is written."""
    return explorer().store.namesakes.in_common()


def likely_pairs(runs: pd.DataFrame, known: pd.DataFrame, in_common: pd.DataFrame) -> pd.DataFrame:
    """Every two runs, from both sides, as run_a and run_b: first those that were compared, then
    those that were moved from one, then those that have enough sources in common to be compared,
    then those that have any; and of each of these those of the same layer and site in another model
    or of another corpus before other layers, with most sources in common first.
    runs: Store.runs.table(); known: Store.namesakes.comparisons(); in_common: its in_common()."""
    sides, names = runs[["run_id", "root", "layer", "site"]], ["run_a", "run_b"]
    pairs = sides.merge(sides, how="cross", suffixes=("_a", "_b"))
    pairs = pairs.rename(columns={"run_id_a": "run_a", "run_id_b": "run_b"})
    pairs = pairs[pairs["run_a"] != pairs["run_b"]]
    pairs = pairs.merge(known[names].assign(compared=1), how="left", on=names)
    pairs = pairs.merge(in_common, how="left", on=names).fillna({"compared": 0, "sources": 0})
    pairs["moved"] = pairs["root_a"] == pairs["root_b"]
    has_any, has_enough = pairs["sources"] > 0, pairs["sources"] >= _ENOUGH_SOURCES
    pairs["comparable"] = (has_any.astype(int) + has_enough).mask(pairs["moved"], 2)
    is_of_one_site = pairs["site_a"] == pairs["site_b"]
    pairs["same_place"] = is_of_one_site & (pairs["layer_a"] == pairs["layer_b"])
    order = ["compared", "moved", "comparable", "same_place", "sources"]
    return pairs.sort_values(order, ascending=False, kind="stable")[names]


def _in_order(runs: pd.DataFrame, run_ids) -> pd.DataFrame:
    return runs.set_index("run_id", drop=False).loc[run_ids]


def what_is_known(pair: RunPair, of_strong: bool = False) -> pd.Series | None:
    """The kept comparison of a pair, as Store.namesakes.comparisons() has it; None without one.
    of_strong: what it says of strong uses, where it tells them."""
    table = explorer().store.namesakes.comparisons(of_strong)
    found = table[(table["run_a"] == pair.a.run_id) & (table["run_b"] == pair.b.run_id)]
    return None if found.empty else found.iloc[0]


def as_made(pair: RunPair, about: pd.Series) -> LatentComparison | None:
    """The kept comparison with the settings that it was made with, of which the database knows
    nothing; None where another one is kept by now. about: of `what_is_known`."""
    return _as_made(tuple(sorted(pair.run_ids)), about["created"])


@st.cache_data(max_entries=64, show_spinner=False)
def _as_made(run_ids: tuple[str, str], created: str) -> LatentComparison | None:
    made = kept_comparison(latent_comparisons_folder(explorer().runs_folder), *run_ids)
    return made if made is not None and made.about["created"] == created else None


def ask_for_strong(pair: RunPair, about: pd.Series) -> bool:
    """Whether strong uses count alone. Where the comparison tells none it is said why, and offered
    to be made again once it could. about: of `what_is_known`."""
    keep("all_uses")
    if what_is_known(pair, of_strong=True) is not None:
        return not linked_switch(
            st, "All uses", "all_uses",
            help="Correlations, ranks and counts are of strong uses; with this switch filler "
            f"counts as well. {GLOSSARY['strong use']} {GLOSSARY['filler']}",
        )  # fmt: skip
    judged = [explorer().store.latents.judged(run.run_id) for run in (pair.a, pair.b)]
    if judged != ["strong", "strong"]:
        st.caption(
            "All uses count, filler too, since one of the two has no scores that tell its strong "
            "uses. Score it on the Latents page, and compare again here."
        )
        return False
    st.caption(
        "All uses count, filler too: this comparison tells no strong uses. It was made by an "
        "earlier version, or before both had scores."
    )
    if not _say_active(pair):
        _offer_to_compare_again(pair, about)
    _COMPARISON.show_last_failure()
    return False


def _offer_to_compare_again(pair: RunPair, about: pd.Series) -> None:
    """Of the same tokens: the new one takes the place of the one that is shown."""
    made = as_made(pair, about)
    label = "Compare again by strong uses"
    if made is None:
        _show_button(pair, label, submit_latent_comparison)
        return

    def submit(queue: KeptJobs, a: Run, b: Run, device: str) -> Job:
        return submit_comparison_again(queue, made, [a, b], device)

    _show_button(pair, label, submit, made.likely_settings["max_tokens"])
    st.caption(literal(_what_is_replaced(made)))


def _what_is_replaced(made: LatentComparison) -> str:
    tokens = f"{made.about['tokens']:,} {made.about['unit']}s"
    texts = f"{'held-out prompts of ' * made.about['held_out']}{made.about['corpus']}"
    said = f"It takes the place of this comparison, on {tokens} of {texts}"
    if made.settings is not None:
        return f"{said}, and reads the same."
    return (
        f"{said}. That was kept by a version that did not note how many were asked for, nor how a "
        "file was read: as many are asked for now, of prompts that may not be the same. To keep "
        "it, copy the folder comparisons/latents beside the runs first."
    )


def _say_active(pair: RunPair) -> bool:
    """Says that the pair is being compared; False where it is not."""
    of_both = [one for one in _COMPARISON.active() if set(one.run_ids) == set(pair.run_ids)]
    if of_both:
        say_under_way(of_both, "Comparing")
    return bool(of_both)


def offer_comparison_of_latents(pair: RunPair) -> None:
    """How many latents the two have in common, and a button that queues their comparison; or why
    there is nothing to compare."""
    count, reason = _in_common(pair.a.directory, pair.b.directory)
    if reason:
        st.info(literal(reason))
        st.page_link("pages/train.py", label="Move a dictionary on the Train page")
        return
    with st.container(border=True):
        latents = "1 latent has" if count == 1 else f"{count:,} latents have"
        st.markdown(
            f"**{latents} the same source in both.** How alike they are used is found by reading "
            "the same held-out prompts with both models, in the background; you can leave this "
            "page."
        )
        if _say_active(pair):
            return
        _show_button(pair, "Compare their latents", submit_latent_comparison)
    _COMPARISON.show_last_failure()


def _show_button(
    pair: RunPair, label: str, submit: Callable[..., Job], tokens: int | None = None
) -> None:
    """submit: takes the queue, both runs and the device; tokens: asked for, where not as many as
    ever."""
    from itda_core.jobs.measure_seconds import latent_comparison_seconds
    from itda_core.similarity.same_latents import COMPARED_TOKENS

    device = ask_for_device("latents_device")
    runs = pair.runs
    dictionaries = [
        (run.config, run.layer, int(row.atoms))
        for run, row in zip(runs, (pair.a, pair.b), strict=True)
    ]
    where = likely_device(device).name
    seconds = latent_comparison_seconds(dictionaries, tokens or COMPARED_TOKENS, where)
    if job_button(label, seconds, type="primary", key="compare_latents"):
        answer(submit(explorer().queue, *runs, device))


@st.cache_data(max_entries=256, show_spinner=False)
def _in_common(directory_a: str, directory_b: str) -> tuple[int, str]:
    """How many latents have the same source, and why there is none, "" where there is one."""
    from itda_core.similarity.same_latents import common_numbers
    from itda_core.similarity.same_sources import namesakes

    directories = {"a": directory_a, "b": directory_b}
    runs = [loaded_run(directory) for directory in directories.values()]
    dictionaries = {side: loaded_dictionary(one) for side, one in directories.items()}
    try:
        numbers = common_numbers(*runs, dictionaries)
        return len(namesakes(dictionaries["a"], dictionaries["b"], numbers)), ""
    except ComparisonError as error:
        return 0, str(error)
