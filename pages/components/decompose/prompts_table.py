"""The prompts of the list side by side: a table, latents × prompts, and two groups compared."""

import json

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.prompt_table import PromptTable
from itda_core.errors import ItdaError
from itda_core.files.json_files import parse_json
from itda_core.runs.texts import keep_text, kept_text, texts_folder
from pages.components.cached import loaded_dictionary
from pages.components.decompose.prompts_compared import groups_of, show_groups, show_matrix
from pages.components.decompose.prompts_reading import read_prompts
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.latents.list import select_rows
from pages.components.latents.score import thresholds_of
from pages.components.reproduce import prompt_table_lines, show_lines
from pages.components.text import literal, sentence, shown, token_label
from pages.components.url import choose, follow_url, number_below, write_url

_LOOKS = {"table": "Table", "matrix": "Latents × prompts", "groups": "A and B compared"}
_NAMED = 3
"""Strongest latents that a row names"""
_LEFT = (
    "Σ‖x − x̂‖² / Σ‖x − o‖² over its decomposed tokens, where o is what is subtracted first: the "
    "FVU with o in place of the mean"
)


def show_prompts(run) -> None:
    """Below the text. run: a row of Store.runs.table()."""
    prompts = _listed()
    if not prompts:
        st.info(
            "The list is empty. Add some prompts above, under *Several prompts* or from a file."
        )
        return
    table = _computed(run, prompts)
    if table is None:
        return
    looks = {"required": True, "label_visibility": "collapsed"}
    look = choose(st.segmented_control, "Prompts as", _LOOKS, "prompts_as", **looks)
    group_a = _follow_group(len(prompts))
    prompts = table.prompts["text"].tolist()  # fewer where reading them was cancelled
    group_a = [row for row in group_a if row < len(prompts)]
    shows = {"table": _show_table, "matrix": show_matrix, "groups": show_groups}
    exported = shows[look](run, table, group_a)
    files, reproduced = st.columns(2)
    if exported is not None:
        with files.popover("Export the prompts", width="stretch"):
            about = {"run": run.run_id, "prompts": prompts, "group_a": group_a, "of": look}
            offer_downloads(exported, about, f"prompts-{look}-{run.run_id}", "prompts_file")
    with reproduced.popover("Reproduce the prompts", width="stretch"):
        show_lines(prompt_table_lines(run.directory, prompts, group_a, _is_of_strong(run)))


def _listed() -> list[str]:
    """The list of prompts, which the link finds by the digest of what is kept beside the runs."""
    folder = texts_folder(explorer().runs_folder)
    wanted = st.query_params.get("prompts")
    if wanted and wanted != st.session_state.get("_written_prompts"):
        kept = kept_text(folder, wanted)
        if kept is None:
            st.warning(
                f"The list of prompts {literal(wanted)} of this link is not kept here: it was made "
                "in another explorer, or has made room for newer ones."
            )
        else:
            st.session_state["prompts"] = _texts(kept)
    prompts = st.session_state.get("prompts", [])
    name = None
    if prompts:
        try:
            name = keep_text(folder, json.dumps(prompts))
        except ItdaError as error:
            st.caption(f"The link leaves out the list of prompts. {sentence(error)}")
    write_url("prompts", name)
    return list(prompts)


def _texts(kept: str) -> list[str]:
    """Those of a kept list; a text that is none stands for itself."""
    try:
        found = parse_json(kept)
    except ValueError:
        return [kept]
    return [str(one) for one in found] if isinstance(found, list) else [kept]


def _is_of_strong(run) -> bool:
    return thresholds_of(run, not st.session_state.get("prompts_all", False)) is not None


def _computed(run, prompts: list[str]) -> PromptTable | None:
    """Of the prompts that were read; None while there is none, as `read_prompts` says."""
    follow_url("prompts_all", [False, True])
    if thresholds_of(run, of_strong=True) is not None:
        of_all = st.toggle(
            "All uses",
            key="prompts_all",
            help="Without it latents are named by their strong uses alone.",
        )
        write_url("prompts_all", of_all or None)
    thresholds = thresholds_of(run, not st.session_state["prompts_all"])
    return read_prompts(run, prompts, thresholds)


def _follow_group(n_prompts: int) -> list[int]:
    """The rows of group A, which the link has by their numbers from 1."""
    wanted = st.query_params.get("group_a")
    if wanted is not None and wanted != st.session_state.get("_written_group_a"):
        numbers = [number_below(one, n_prompts + 1) for one in wanted.split(",")]
        st.session_state["group_a"] = [number - 1 for number in numbers if number]
    group = [row for row in st.session_state.get("group_a", []) if row < n_prompts]
    write_url("group_a", ",".join(str(row + 1) for row in group) or None)
    return group


def _show_table(run, table: PromptTable, group_a: list[int]) -> pd.DataFrame:
    prompts, key = table.prompts, f"prompts_{hash(tuple(table.prompts['text']))}"
    names = _source_tokens(run)
    strongest = table.uses.groupby("prompt").head(_NAMED)
    strongest = strongest.assign(name=[f"{one} {names[one]}" for one in strongest["latent"]])
    named = (
        strongest.groupby("prompt")["name"].agg(" · ".join).reindex(prompts.index, fill_value="")
    )
    exported = prompts.assign(strongest_latents=named, group=groups_of(len(prompts), group_a))
    select_rows(key, group_a)

    def take_group() -> None:
        st.session_state["group_a"] = st.session_state[key]["selection"]["rows"]
        st.session_state["_written_group_a"] = st.query_params.get("group_a")

    st.dataframe(
        exported.assign(
            number=np.arange(len(prompts)) + 1,
            text=prompts["text"].str[:300].map(shown),
            left=100 * prompts["left"],
        ),
        column_order=["number", "text", "tokens", "left", "strongest_latents", "group"],
        column_config={
            "number": st.column_config.NumberColumn("no.", width=45, pinned=True),
            "text": st.column_config.TextColumn("prompt", width="large"),
            "tokens": st.column_config.NumberColumn("tokens", width=60),
            "left": st.column_config.NumberColumn(
                "unexplained", format="%.1f %%", width=90, help=_LEFT
            ),
            "strongest_latents": st.column_config.TextColumn("strongest latents", width="medium"),
            "group": st.column_config.TextColumn("group", width=55),
        },
        hide_index=True,
        height=min(38 + 35 * len(prompts), 460),
        on_select=take_group,
        selection_mode="multi-row",
        key=key,
    )
    said, opens = st.columns([3, 1.2], vertical_alignment="center")
    said.caption(
        "Click the head of a column to sort by it. The chosen rows are group A, the others B: "
        "*A and B compared* says which latents differ."
    )
    if len(group_a) == 1:
        text = prompts["text"][group_a[0]]
        opens.button("Decompose this prompt", on_click=_open, args=[text], width="stretch")
    return exported


def _open(text: str) -> None:
    st.session_state["text"], st.session_state["view"] = text, "terms"


def _source_tokens(run) -> dict[int, str]:
    sources = loaded_dictionary(run.directory).sources
    return dict(zip(sources["latent"], sources["token"].map(token_label), strict=True))
