"""Which latents a text is steered with: the first by its number, found by word or label, and others
beside it, each with a weight."""

import pandas as pd
import streamlit as st

from itda_core.analysis.what_if import Edit
from itda_core.store.latent_search import LatentSearch
from pages.components.decompose.edits_url import edits_text, read_edits
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Action, Column, show_rows_of
from pages.components.latents.found import MATCH, in_short
from pages.components.latents.search import wants_strong
from pages.components.run_names import words_of
from pages.components.text import escaped, literal, row_context, shown, token_label
from pages.components.url import keep, write_url

Weights = dict[int, float]
"""By latent"""
_MOST_FOUND = 12
_MOST_OTHERS = 8
_LARGEST = 3.0
_ACTIONS = (
    Action("take", "Steer with it", "Steer with"),
    Action("add", "Add it", "Add to the others"),
)


def take_chosen() -> None:
    """Before the field of the first latent is drawn: what was chosen among those found."""
    latent = st.session_state.pop("_steer_found", None)
    if latent is not None:
        st.session_state["steer"] = str(latent)


def find_latents(run) -> None:
    """A field for a word or a label, and what is found by it. run: a row of Store.runs.table()."""
    keep("steer_word")
    word = st.text_input(
        "Find a latent by word or label",
        key="steer_word",
        placeholder="such as war",
        help="As the search on the Latents page: latents with the word in their label come first, "
        "then those whose source it is or with much of their strong uses on it, then those with it "
        "near their uses or around their source.",
    ).strip()
    if not word:
        return
    search = LatentSearch(word, "meaning", "text", of_strong=wants_strong())
    found = explorer().store.latents.numbers(run.run_id, search, "match")[:_MOST_FOUND]
    if not found:
        st.caption(
            f"No latent of this dictionary has {literal(repr(word))} in its label, on or near its "
            f"uses, or around its {words_of(run).source}."
        )
        return
    table = explorer().store.latents.table(run.run_id, found).set_index("latent").loc[found]
    _show_found(run, table.reset_index(), in_short(run.run_id, search))


def _show_found(run, table: pd.DataFrame, why: dict[int, str]) -> None:
    """why: each is there, by latent."""
    rows = table.assign(
        token=table["token"].map(token_label),
        label=table["label"].map(shown),
        percent=100 * table["strong_density"],
        found=[why[latent] for latent in table["latent"]],
        context=[row_context(row.text, row.start, row.end) for row in table.itertuples()],
        pressed="",
    )
    rows["named"] = rows["token"]
    columns = [
        Column("actions", "", "actions"),
        Column("token", words_of(run).source, "latent"),
        *[Column("label", "label")] * bool(rows["label"].any()),
        Column("found", "match", help=MATCH),
        Column("percent", "used on", "number", digits=2, unit=" %"),
        Column("latent", "no.", "number", is_name=True),
        Column("context", f"{words_of(run).source} in context", "quote"),
    ]
    acted = show_rows_of(run, rows, columns, "steer_found", 220, _ACTIONS)
    if acted:
        action, latent = acted[0], int(acted[1])
        if action == "take":
            st.session_state["_steer_found"] = latent
        else:
            _others(run).setdefault(latent, 1.0)
        st.rerun()


def ask_for_others(run, first: int) -> Weights:
    """The other latents and their weights, which may be changed; they follow the link. first: the
    latent that has the weight 1."""
    _follow_link(run)
    others = _others(run)
    others.pop(first, None)
    while len(others) > _MOST_OTHERS:
        others.pop(next(iter(others)))
    if others:
        sources = explorer().store.latents.table(run.run_id, list(others)).set_index("latent")
    for latent in list(others):
        name, weight, away = st.columns([3, 1.2, 0.8], vertical_alignment="bottom")
        name.caption(f"and latent {latent:d}: {escaped(token_label(sources.loc[latent, 'token']))}")
        key = f"weight_{run.run_id}_{latent}"
        st.session_state.setdefault(key, others[latent])
        others[latent] = weight.number_input(
            "Weight", -_LARGEST, _LARGEST, step=0.25, key=key, label_visibility="collapsed",
            help="Beside the first latent, which has the weight 1",
        )  # fmt: skip
        away.button("Remove", key=f"remove_{latent}", on_click=others.pop, args=[latent, None])
    write_url("with", _as_text(others) or None)
    return dict(others)


def _others(run) -> Weights:
    """Those of one dictionary, to be changed."""
    return st.session_state.setdefault("_steer_with", {}).setdefault(run.run_id, {})


def _follow_link(run) -> None:
    wanted = st.query_params.get("with", "")
    if not wanted or wanted == st.session_state.get("_written_with"):
        return
    found = read_edits(wanted, int(run.atoms))
    weights = {latent: weight for latent, (weight, _) in found.items() if abs(weight) <= _LARGEST}
    if len(weights) < len(wanted.split(",")):
        st.warning(f"Of the latents {literal(wanted)} of the link some make no sense: left out.")
    for latent, weight in weights.items():
        st.session_state[f"weight_{run.run_id}_{latent}"] = weight
    _others(run).clear()
    _others(run).update(weights)


def _as_text(weights: Weights) -> str:
    """What `read_edits` reads, in whose form they are in the link: "12*0.5,40*-1"."""
    return ",".join(
        f"{latent}*1" if weight == 1 else edits_text([Edit(latent, weight)])
        for latent, weight in weights.items()
    )
