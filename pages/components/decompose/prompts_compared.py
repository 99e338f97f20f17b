"""Latents × prompts, and two groups of prompts compared."""

import functools

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.prompt_table import PromptTable, compare_groups, with_tokens
from itda_core.errors import InputError
from pages.components.cached import loaded_dictionary
from pages.components.decompose.terms import label_column, with_context
from pages.components.text import literal

_MATRIX_PROMPTS, _MATRIX_LATENTS = 40, 60
_BY_CHANCE = 0.05
_SHARE = "Share of the squares of all coefficients of the prompt"


def groups_of(n_prompts: int, group_a: list[int]) -> list[str]:
    """The group of each prompt, "" where there are none. group_a: rows."""
    chosen = set(group_a)
    return ["" if not chosen else "A" if row in chosen else "B" for row in range(n_prompts)]


def show_matrix(run, table: PromptTable, group_a: list[int]) -> pd.DataFrame | None:
    """The largest part of it; returned is all of it, for a file. run: a row of
    Store.runs.table(); group_a: rows."""
    matrix = table.matrix()
    if matrix.empty:
        st.info("No prompt uses a latent strongly. *All uses* has filler as well.")
        return None
    shares = matrix.iloc[:_MATRIX_PROMPTS, :_MATRIX_LATENTS].T
    cells = 100 * shares.reset_index(drop=True)
    cells.columns = [str(number + 1) for number in cells.columns]
    largest = max(float(cells.to_numpy().max()), 1e-9)
    sources = _described(run, shares.index.to_numpy())
    parts = [sources[["latent", "source_token", *label_column(sources)]].reset_index(drop=True)]
    drawn = pd.concat([*parts, cells], axis=1)
    styled = drawn.style.map(lambda share: _shade(share, largest), subset=list(cells.columns))
    groups = groups_of(len(table.prompts), group_a)
    _choose_latent(
        run,
        styled,
        sources["latent"].tolist(),
        {
            name: st.column_config.NumberColumn(
                f"{int(name)} {groups[int(name) - 1]}".strip(),
                format="%.1f",
                width=50,
                help=literal(table.prompts["text"][int(name) - 1][:300]),
            )
            for name in cells.columns
        },
        "matrix",
    )
    cut = []
    if len(matrix) > len(cells.columns):
        cut.append(f"the first {len(cells.columns):,} of {len(matrix):,} prompts")
    if matrix.shape[1] > len(shares):
        cut.append(f"{len(shares):,} of {matrix.shape[1]:,} latents, the largest sums first")
    st.caption(
        f"Percent: {_SHARE[0].lower()}{_SHARE[1:]}. Columns are the numbers of the prompts. "
        + (f"Shown are {' and '.join(cut)}; the export has all." if cut else "")
    )
    return table.uses.assign(text=table.prompts["text"].reindex(table.uses["prompt"]).to_numpy())


def _shade(share: float, largest: float) -> str:
    """One hue, so that it is read in light and dark."""
    return f"background-color: rgba(46, 110, 150, {0.75 * (share / largest) ** 0.5:.3f})"


def show_groups(run, table: PromptTable, group_a: list[int]) -> pd.DataFrame | None:
    """The latents on which the groups differ, and the same for a file. group_a: rows."""
    group_b = [row for row in range(len(table.prompts)) if row not in set(group_a)]
    try:
        found = compare_groups(table, group_a, group_b)
    except InputError as error:
        st.info(f"{literal(str(error))} Choose the rows of group A in *Table*; the others are B.")
        return None
    is_sure = found["low"] * found["high"] > 0
    n_a, n_b = len(with_tokens(table, group_a)), len(with_tokens(table, group_b))
    st.caption(
        f"Group A has {_prompts(n_a)}, group B {_prompts(n_b)}"
        f"{_left_out(len(table.prompts) - n_a - n_b)}. Of {len(found):,} latents that they use, "
        f"{int(is_sure.sum()):,} differ: their 95 % interval (over prompts, drawn anew 1,000 "
        f"times) leaves out 0. By chance some {_BY_CHANCE * len(found):.0f} would. "
        "With few prompts the intervals are too narrow."
    )
    sources = _described(run, found["latent"].to_numpy())
    names = ("mean_a", "mean_b", "difference", "low", "high")
    percents = found.assign(**{name: 100 * found[name] for name in names})
    percents = pd.concat([percents, sources.drop(columns="latent").reset_index(drop=True)], axis=1)
    number = functools.partial(st.column_config.NumberColumn, width=65)
    _choose_latent(
        run,
        percents,
        found["latent"].tolist(),
        {
            "mean_a": number("A, %", format="%.2f", help=f"{_SHARE}, the mean over group A"),
            "mean_b": number("B, %", format="%.2f"),
            "difference": number("A − B", format="%+.2f"),
            "low": number("from", format="%+.2f", help="The 95 % interval of A − B"),
            "high": number("to", format="%+.2f"),
            "prompts_a": number("in A", format="%d", help="Prompts that use it"),
            "prompts_b": number("in B", format="%d"),
        },
        "groups",
    )
    columns = ["source_token", "label", "source_prompt_id", "source_position"]
    return pd.concat([found, sources[columns].reset_index(drop=True)], axis=1)


def _prompts(count: int) -> str:
    return "1 prompt" if count == 1 else f"{count:,} prompts"


def _left_out(count: int) -> str:
    if not count:
        return ""
    have, are = ("has", "is") if count == 1 else ("have", "are")
    return f"; {_prompts(count)} {have} no decomposed token and {are} left out"


def _described(run, latents: np.ndarray) -> pd.DataFrame:
    """latent, and its source and label as they are printed."""
    sources = loaded_dictionary(run.directory).sources.set_index("latent").loc[latents]
    return with_context(run, sources.add_prefix("source_").reset_index())


def _choose_latent(run, table, latents: list[int], columns: dict, name: str) -> None:
    """A table with a row a latent; choosing one gives a link to it. columns: what is shown behind
    latent, source and label."""
    labels = getattr(table, "data", table).get("label")
    labelled = ["label"] * bool(labels is not None and labels.any())
    event = st.dataframe(
        table,
        column_order=["latent", "source_token", *labelled, *columns],
        column_config={
            "latent": st.column_config.NumberColumn("latent", format="%d", width=60),
            "source_token": st.column_config.TextColumn("source", width=90),
            "label": st.column_config.TextColumn("label", width=90),
            **columns,
        },
        hide_index=True,
        height=min(38 + 35 * len(latents), 460),
        on_select="rerun",
        selection_mode="single-row",
        key=f"prompts_{name}_{hash(tuple(latents))}",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(latents):
        where = {"run": run.run_id, "latent": str(latents[rows[0]])}
        label = f"Open latent {latents[rows[0]]}"
        st.page_link("pages/latents.py", label=label, query_params=where)
