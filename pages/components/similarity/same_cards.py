"""A latent and its namesake: one source, two cards, and their uses under each other."""

import pandas as pd
import streamlit as st

from itda_core.similarity.source_sets import same_tokenizer
from pages.components.cached import loaded_dictionary
from pages.components.explorer import explorer
from pages.components.latents.card import show_histogram_of_uses, show_numbers, show_source
from pages.components.latents.elsewhere import label_text
from pages.components.latents.score import threshold_of
from pages.components.latents.uses import use_row
from pages.components.run_names import layer_of, run_label
from pages.components.scale import usual_largest
from pages.components.similarity.paired_uses import (
    difference,
    paired_uses,
    strong_pairs,
    with_partners,
)
from pages.components.similarity.same_choice import RunPair
from pages.components.text import escaped, literal, ordinal, token_label
from pages.components.token_strip.strip import show_rows

_PAIRED_USES = 12
_SIDES = "ab"


def show_pair(pair: RunPair, chosen: pd.Series, of_strong: bool) -> None:
    """The two latents of a row of Store.namesakes.table(). of_strong: whether it is of strong
    uses."""
    store = explorer().store
    runs = {"a": pair.a, "b": pair.b}
    numbers = {side: int(chosen[f"latent_{side}"]) for side in _SIDES}
    latents = {}
    for side, run in runs.items():
        table = store.latents.table(run.run_id, [numbers[side]])
        if table.empty:
            st.caption("One of the two is no longer here.")
            return
        latents[side] = table.iloc[0]
    st.markdown(f"#### {escaped(token_label(latents['a'].token))}")
    st.caption(literal(in_words(chosen, of_strong)))
    asked = store.uses.of_card(runs["a"].run_id, numbers["a"], latents["a"].prompt_id, 1)
    show_source(latents["a"], asked.source_spans, "same_source")
    for side, place in zip(_SIDES, st.columns(2, gap="medium"), strict=True):
        with place, st.container(border=True):
            _show_side(side, runs[side], latents[side])
    _show_uses(runs, latents, of_strong)


def in_words(row: pd.Series, of_strong: bool) -> str:
    """How alike a latent and its namesake are, and on how many tokens that is seen."""
    strongly = " strongly" * of_strong
    counts = (
        f"On the tokens compared A uses it{strongly} on {int(row.uses_a):,}, B on "
        f"{int(row.uses_b):,}, both on {int(row.uses_both):,}."
    )
    if pd.isna(row.correlation):
        return f"No correlation: one of the two is not used{strongly} on any of them. {counts}"
    told = f"Correlation {'of strong uses ' * of_strong}{row.correlation:+.3f}"
    ranks = [
        f"{ordinal(int(row.rank_a))} of B's latents by its likeness to A's",
        f"{ordinal(int(row.rank_b))} of A's by its likeness to B's",
    ]
    return f"{told}. {counts} B's is the {ranks[0]}, A's the {ranks[1]}."


def _show_side(side: str, run, latent: pd.Series) -> None:
    number = int(latent.latent)
    st.markdown(f"**{side.upper()}: {literal(run.model)} · {layer_of(run)}** · latent {number}")
    st.caption(literal(run_label(run)))
    if label := label_text(run, latent):
        st.markdown(label)
    where = {"run": run.run_id, "latent": str(number)}
    st.page_link("pages/latents.py", label="Open it on the Latents page", query_params=where)
    show_numbers(run, latent)
    if latent.tokens:
        coefficients = explorer().store.uses.coefficients(run.run_id, number).to_numpy()
        show_histogram_of_uses(run, latent, coefficients, f"same_{side}")


def _show_uses(runs: dict, latents: dict[str, pd.Series], of_strong: bool) -> None:
    """The tokens that use the one or the other most, A's row above B's. of_strong: only those that
    use one strongly."""
    store = explorer().store
    uses = {side: store.uses.all(runs[side].run_id, int(latents[side].latent)) for side in _SIDES}
    dictionaries = [loaded_dictionary(runs[side].directory) for side in _SIDES]
    has_one = same_tokenizer(*dictionaries)
    table = paired_uses(uses["a"], uses["b"], has_one)
    strongly = " strongly" * of_strong
    if of_strong:
        table = strong_pairs(table, *(threshold_of(latents[side]) for side in _SIDES))
    st.markdown(f"##### Their {'strong ' * of_strong}uses, under each other")
    if table.empty:
        st.caption(f"Neither is used{strongly} on an explored token.")
        return
    counted = [f"{'is_strong' if of_strong else 'coefficient'}_{side}" for side in _SIDES]
    n_both = int((table[counted].all(axis=1) & table[counted].notna().all(axis=1)).sum())
    st.caption(
        f"{len(table):,} explored tokens use the one or the other{strongly}, {n_both:,} of them "
        f"both. Below: the {min(len(table), _PAIRED_USES)} strongest of the {len(table):,}, each "
        "against its latent's largest coefficient; ≠ marks those where the two differ. The "
        "correlation above and the order of the list are of other tokens, those compared, so that "
        "a pair can look more or less alike here."
        + ("" if has_one else " A token that ends where none of the other does stands alone.")
    )
    shown = with_partners(
        table.head(_PAIRED_USES),
        *(store.uses.at_ends(runs[side].run_id, table.head(_PAIRED_USES)) for side in _SIDES),
        has_one_tokenizer=has_one,
    )
    rows = {side: _rows_of(side, runs[side], shown, uses[side]) for side in _SIDES}
    both = [rows[side][place] for place in range(len(shown)) for side in _SIDES]
    show_rows([row for row in both if row is not None], "same_uses")


def _rows_of(side: str, run, shown: pd.DataFrame, uses: pd.DataFrame) -> list[dict | None]:
    """A row for each of some tokens; None where the run has no such token. shown: of
    `with_partners`."""
    is_read = shown[f"position_{side}"].notna().to_numpy()
    tokens = pd.DataFrame(
        {
            "prompt_id": shown["prompt_id"],
            "position": shown[f"position_{side}"],
            "coefficient": shown[f"coefficient_{side}"].fillna(0.0),
        }
    )[is_read].astype({"position": int})
    by_prompt = {
        prompt_id: (rows["position"].to_numpy(), rows["coefficient"].to_numpy())
        for prompt_id, rows in uses.groupby("prompt_id")
    }
    largest = usual_largest(uses["coefficient"].to_numpy())
    rows: list[dict | None] = [None] * len(shown)
    in_text = explorer().store.uses.in_context(run.run_id, tokens.reset_index(drop=True))
    for place, use in zip(is_read.nonzero()[0], in_text.itertuples(), strict=True):
        row = use_row(use, by_prompt.get(use.prompt_id), largest, opens=False)
        rows[place] = row | _marks(side, run, shown.iloc[place], row["title"])
    return rows


def _marks(side: str, run, token: pd.Series, title: str) -> dict[str, str]:
    """How a token's row begins and ends: the coefficient and how the two differ."""
    size = f"{token[f'coefficient_{side}']:+.2f}"
    if pd.isna(token[f"coefficient_{side}"]):
        # With a budget for all tokens together an explored one may have no term.
        without = "no terms" if run.budget == "mean" else "not explored"
        size = "not used" if token[f"has_terms_{side}"] else without
    told = difference(token)
    mark = "≠ " if told else ""
    title = " · ".join(filter(None, [title, told])) if side == "a" else ""
    return {"chip": f"{mark}{side.upper()} {size}", "title": title}
