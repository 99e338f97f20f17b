"""What the score of a latent says, in words."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.glossary import GLOSSARY
from itda_core.jobs.submissions import submit_scores
from itda_core.runs.latent_scores import CHANCE
from itda_core.runs.latent_uses import word_at
from pages.components.cached import loaded_run
from pages.components.explorer import explorer
from pages.components.job_offer import JobOffer, answer, job_button
from pages.components.text import literal, quoted

SURE = 0.2
"""Largest share of the strong uses that may be filler where the threshold is relied on"""
_CHANCE = f"{CHANCE:g} is chance"
HARDLY = 0.1
"""Share of the strong uses on its token or word below which its title says little of them"""


def threshold_of(latent: pd.Series) -> float | None:
    """From which coefficient its uses are strong, inf where none is; None where that is not known.
    latent: a row of Store.latents.table()."""
    return None if pd.isna(latent.threshold) else float(latent.threshold)


def has_strong_uses(latent: pd.Series) -> bool:
    """Whether a threshold tells any. latent: a row of Store.latents.table()."""
    threshold = threshold_of(latent)
    return threshold is not None and np.isfinite(threshold)


def thresholds_of(run, of_strong: bool) -> np.ndarray | None:
    """The threshold of each latent of a dictionary, [n_latents], NaN without one; None where strong
    uses are not asked for, or nothing tells them. run: a row of Store.runs.table()."""
    store = explorer().store
    if not of_strong or store.known(store.latents.judged, run.run_id) != "strong":
        return None
    return store.known(store.latents.thresholds, run.run_id)


def show_score(run, latent: pd.Series, is_page: bool) -> None:
    """What its strong uses are and how far to trust them. Where its dictionary has no scores the
    page of the latent offers to find them. run: a row of Store.runs.table()."""
    if pd.isna(latent.why):
        if is_page and run.explored_tokens:
            _offer(run)
        return
    st.markdown(literal(strong_in_words(latent)))
    told = how_well_told(latent)
    if told:
        st.caption(literal(told), help=literal(told_in_detail(latent)) or None)


def _offer(run) -> None:
    offer = JobOffer("scoring", run.run_id)
    if offer.active():
        st.caption("A job is finding its strong uses and scoring its latents.")
        return
    offer.show_last_failure()
    if job_button(
        "Find strong uses and score the latents", type="tertiary", help=GLOSSARY["filler"]
    ):
        answer(submit_scores(explorer().queue, [loaded_run(run.directory)]))


def strong_in_words(latent: pd.Series) -> str:
    """Which uses are strong, as a sentence or two."""
    threshold = threshold_of(latent)
    if threshold is None:
        return f"No threshold between strong uses and filler: {latent.why}."
    if not has_strong_uses(latent):
        return (
            "None of its uses can be told from filler: outside the prompt of its source the "
            "largest coefficient is negative."
        )
    above = f"{threshold:.3g}"
    strong = f"{int(latent.strong):,} {'use' if latent.strong == 1 else 'uses'}"
    if latent.filler > SURE:
        return (
            f"Strong from {above} up, but that is {strong}: too few to say how many are filler "
            f"({latent.filler:.0%} may be)."
        )
    word, from_up = word_at(latent.text, latent.start, latent.end), f"Strong from {above} up"
    if not np.isnan(latent.word_above):
        alone = f"{latent.word_above:.3g}"
        if alone == above:
            return f"{from_up}: {strong}, nine in ten of them on {quoted(word)}."
        mixed = "; mixed below" if latent.word_above > latent.threshold else ""
        alone = f"From {alone} up nine in ten are on {quoted(word)}"
        return f"{from_up}: {strong}. {alone}{mixed}."
    if np.isnan(latent.strong_on_word):
        return f"{from_up}: {strong}."
    # The shares leave out the prompt of the source, which can't speak for itself.
    on = f"{latent.strong_on_word:.0%} of them are on {quoted(word)}"
    token = latent.token.strip()
    if token and token.casefold() != word.casefold():
        on = f"{latent.strong_on_token:.0%} of them are on its token {quoted(token)}, "
        on += f"{latent.strong_on_word:.0%} on its word {quoted(word)}"
    hardly = max(latent.strong_on_word, latent.strong_on_token) < HARDLY
    doubt = ": its title hardly says when it is used" if hardly else ""
    return f"{from_up}: {strong}; in other prompts {on}{doubt}."


def how_well_told(latent: pd.Series) -> str:
    """How well its source tells its uses from other tokens, and from the same token elsewhere; and
    where either may be chance, or is the other way round. "" where it was not judged."""
    if np.isnan(latent.auroc):
        return ""
    uses = "uses" if threshold_of(latent) is None else "strong uses"
    told = _told(latent.auroc, latent.auroc_low, latent.auroc_high, latent.drawn)
    if latent.auroc_high < CHANCE:
        return f"Its {uses} are less like its source than other tokens are: {told}; {_CHANCE}."
    if latent.auroc_low <= CHANCE:
        return f"Its source may not tell its {uses} from any other token: {told}; {_CHANCE}."
    text = f"Its source tells its {uses} from other tokens"
    if np.isnan(latent.same_auroc):
        return f"{text}: {told}; {_CHANCE}."
    if _may_be_chance(latent.same_low, latent.same_high):
        return f"{text}, but perhaps not from the same token elsewhere: {told}; {_CHANCE}."
    same = _told(latent.same_auroc, latent.same_low, latent.same_high, latent.same_drawn)
    if latent.same_high < CHANCE:
        less = "they are less like it than the same token elsewhere is"
        return f"{text}, but {less}: {told}, and there {same}; {_CHANCE}."
    return f"{text}, also from the same token elsewhere: {told}, and there {same}; {_CHANCE}."


def told_in_detail(latent: pd.Series) -> str:
    """How well it tells them from the same token elsewhere where that may be chance; "" where there
    is nothing to add."""
    if np.isnan(latent.same_auroc) or not _may_be_chance(latent.same_low, latent.same_high):
        return ""
    same = _told(latent.same_auroc, latent.same_low, latent.same_high, latent.same_drawn)
    text = (
        f"From the same token elsewhere {same}, which may be chance: the interval holds {CHANCE:g}."
    )
    if latent.auroc_low <= CHANCE:  # then it may say nothing of the token either
        return text
    return (
        f"{text} As far as these uses show, its source says which token they are on, and no more."
    )


def _told(value: float, low: float, high: float, drawn: float) -> str:
    """drawn: uses that it is by."""
    by = "1 use" if drawn == 1 else f"{int(drawn):,} uses"
    return f"AUROC {value:.2f} ({low:.2f}–{high:.2f}) by {by}"


def _may_be_chance(low: float, high: float) -> bool:
    return bool(low <= CHANCE <= high)
