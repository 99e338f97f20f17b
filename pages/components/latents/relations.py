"""What a latent has to do with others: near atoms, company, next tokens, layers and models."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.neighbours import NextTokens, nearest_atoms, next_tokens
from itda_core.model.steps_of_work import Step
from itda_core.settings import RESID_POST
from pages.components.cached import loaded_dictionary, loaded_model, loaded_run
from pages.components.computed import Kept, computed, is_asked_for
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, show_rows_of, show_rows_of_runs
from pages.components.latents.other_models import show_other_models
from pages.components.latents.score import threshold_of, thresholds_of
from pages.components.latents.search import wants_strong
from pages.components.run_names import run_label, words_of
from pages.components.text import literal, row_context, token_label

_COUNT = 10
_MIN_SHARED = 5
"""Tokens that two latents must share: of fewer, a lift says little"""


@st.fragment
def show_relations(run, latent: pd.Series) -> None:
    """Lists, of which only the open one is worked out. run: a row of Store.runs.table();
    latent: a row of Store.latents.table()."""
    if st.session_state.pop("_jumps", False):
        st.rerun()  # the whole page: the fragment alone would keep the card
    # Closed at first: going from latent to latent must not wait for it.
    related = st.expander("Related", on_change="rerun", key="related")
    if related.open:
        with related:
            _show_lists(run, latent)


def _show_lists(run, latent: pd.Series) -> None:
    names = ["Nearest atoms", "Used together", "Next tokens", "Other layers"]
    shows = [_show_nearest, _show_company, _show_next_tokens, _show_other_layers]
    if run.kind == "itda":  # an autoencoder's latents are no tokens that others could have
        names, shows = [*names, "Other models"], [*shows, show_other_models]
    tabs = st.tabs(names, on_change="rerun", key="relations")
    for tab, show in zip(tabs, shows, strict=True):
        if tab.open:
            with tab:
                show(run, latent)


def _show_nearest(run, latent: pd.Series) -> None:
    atoms = nearest_atoms(loaded_dictionary(run.directory), int(latent.latent), _COUNT)
    st.caption("Atoms by their cosine to this one; a negative one points the other way.")
    _choose_latent(run, atoms, [Column("cosine", "cosine", "number", digits=3, sign=True)])


def _show_company(run, latent: pd.Series) -> None:
    number = int(latent.latent)
    store = explorer().store
    is_strong = wants_strong() and store.known(store.latents.judged, run.run_id) == "strong"
    companions = store.uses.together(run.run_id, number, _MIN_SHARED, _COUNT, is_strong)
    strongly = " strongly" * (is_strong and threshold_of(latent) is not None)
    if companions.empty:
        more = " *All uses*, above, has those of filler too." * is_strong
        whole = _counted_whole(run, [number]) if is_strong else ""
        st.caption(f"No other latent shares {_MIN_SHARED} tokens{strongly} with it.{whole}{more}")
        return
    st.caption(
        f"Latents{strongly} on the same tokens, by lift: how many times more often than by "
        f"chance, of those that share at least {_MIN_SHARED} tokens."
        + (_counted_whole(run, [number, *companions["latent"]]) if is_strong else "")
    )
    columns = [
        Column("lift", "lift", "number", digits=1, unit="×"),
        Column("both", "shared", "number"),
    ]
    sources = loaded_dictionary(run.directory).sources.set_index("latent", drop=False)
    sources = sources.loc[companions["latent"]].drop(columns="latent").reset_index(drop=True)
    _choose_latent(run, pd.concat([companions, sources], axis=1), columns)


def _counted_whole(run, latents: list[int]) -> str:
    """Of which of some latents all uses count, since nothing tells their strong ones; "" of none.
    run: a row of Store.runs.table()."""
    thresholds = thresholds_of(run, of_strong=True)
    names = [f"{latent:d}" for latent in latents if np.isnan(thresholds[latent])]
    if not names:
        return ""
    of = f"latent {names[0]}" if len(names) == 1 else f"latents {', '.join(names)}"
    return f" Of {of}, without a threshold, all uses count."


def _show_next_tokens(run, latent: pd.Series) -> None:
    model = loaded_model(loaded_run(run.directory).config.model)
    if reason := model.why_not("unembedding"):
        st.caption(literal(reason))
        return
    kept = _next_tokens(run.directory, int(latent.latent))
    if not is_asked_for(model, kept, "Show", "what comes after its blocks", "next_tokens"):
        return
    steps = functools.partial(_next_tokens_steps, run.directory, int(latent.latent))
    tokens = computed(kept, model, steps, range(model.n_layers - 1, model.n_layers))
    st.caption(
        "The atom through the model's final norm and unembedding, above the mean of all tokens. "
        "The blocks in between are left out, so this is its direct effect only."
    )
    for place, title, table in zip(
        st.columns(2), ("Promoted", "Suppressed"), (tokens.promoted, tokens.suppressed), strict=True
    ):
        place.dataframe(
            table.assign(token=table["token"].map(token_label)),
            column_order=["token", "score"],
            column_config={
                "token": title,
                "score": st.column_config.NumberColumn("score", format="%+.2f"),
            },
            hide_index=True,
            key=f"next_{title}",
        )


@st.cache_resource(max_entries=512, show_spinner=False)
def _next_tokens(directory: str, latent: int) -> Kept[NextTokens]:
    return Kept(directory, latent)


def _next_tokens_steps(directory: str, latent: int) -> Iterator[Step[NextTokens]]:
    model = loaded_model(loaded_run(directory).config.model)
    yield Step(1.0, 0, next_tokens(model, loaded_dictionary(directory), latent, _COUNT))


def _show_other_layers(run, latent: pd.Series) -> None:
    """The latent that reads the source token most strongly in every dictionary of the model."""
    runs = explorer().store.runs.table()
    siblings = {row.run_id: row for row in runs[runs["model"] == run.model].itertuples()}
    layers = explorer().store.uses.at_token([*siblings], latent.prompt_id, int(latent.position))
    layers = layers[layers["run_id"] != run.run_id].reset_index(drop=True)
    if layers.empty:
        st.caption(
            "No other dictionary of this model has read this token. Train one at another layer "
            "on the same texts."
        )
        return
    st.caption(
        f"How the same {words_of(run).source} is read elsewhere: the latent with the largest "
        "coefficient there. ● marks a latent whose own source it is; where the token is not "
        "among the explored ones it has no coefficient."
    )
    shown = _with_sources(layers, siblings)
    columns = [
        Column("layer", "layer", "number"),
        *[Column("site", "place")] * (set(shown["site"]) != {RESID_POST}),
        Column("own", "own"),
        Column("latent", "latent", "number", is_name=True),
        Column("token", "source token", "latent", width=130),
        Column("coefficient", "coefficient", "number", digits=2, sign=True),
        Column("context", "source in context", "quote"),
        Column("dictionary", "dictionary"),
    ]
    show_rows_of_runs(siblings, shown, columns, "elsewhere")


def _with_sources(layers: pd.DataFrame, siblings: dict) -> pd.DataFrame:
    """With the source of each latent, and what its dictionary is called."""
    store = explorer().store
    sources = [
        store.latents.table(row.run_id, [int(row.latent)]).iloc[0] for row in layers.itertuples()
    ]
    return layers.assign(
        site=[siblings[run_id].site for run_id in layers["run_id"]],
        own=["●" if is_source else "" for is_source in layers["is_source"]],
        token=[token_label(source.token) for source in sources],
        context=[row_context(source.text, source.start, source.end) for source in sources],
        dictionary=[run_label(siblings[run_id]) for run_id in layers["run_id"]],
    )


def _choose_latent(run, table: pd.DataFrame, columns: Sequence[Column]) -> None:
    """Latents with their sources; a click on a row opens its latent. columns: what else is
    shown."""
    texts = explorer().store.runs.prompt_texts(table["prompt_id"].unique().tolist())
    contexts = [
        row_context(texts.get(row.prompt_id, ""), row.start, row.end) for row in table.itertuples()
    ]
    source = words_of(run).source
    columns = [
        *columns,
        Column("latent", "latent", "number", is_name=True),
        Column("token", source, "latent", width=130),
        Column("context", f"{source} in context", "quote"),
    ]
    rows = table.assign(context=contexts, token=table["token"].map(token_label))
    show_rows_of(run, rows, columns, "related_latents", places={}, choose=_jump)


def _jump(latent: str) -> None:
    """To a latent of the same dictionary, from a fragment, which alone would keep the card."""
    st.session_state["latent"] = int(latent)
    st.session_state["_jumps"] = True
