"""What is shown of one latent: its source, its strongest uses, its histogram."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.exchange import atom_file
from pages.components.charts import coefficient_histogram
from pages.components.downloads import offer_downloads
from pages.components.reproduce import latent_lines, show_lines
from pages.components.session import explorer, loaded_dictionary
from pages.components.text import literal
from pages.components.token_strip import fold_twins, show_rows, strength, token_row

_BANDS, _OF_EACH_BAND = 4, 5
_SIGNS = {0: "both signs", 1: "+", -1: "−"}
_CONTEXT_TOKENS = 8
"""Tokens on each side of a use in the short view: about 16 in all."""
_SOURCE_TOKENS = 16
"""The same of the source."""


def show_card(
    run, latent: pd.Series, key: str = "", most_uses: int = 20, is_page: bool = False
) -> None:
    """The whole card. run: a row of Store.runs(); latent: a row of Store.latents(); key: sets the
    cards of one page apart; most_uses: how many are listed; is_page: whether it is the page of the
    latent, where more can be asked for: other uses, files, and how to have the same numbers."""
    _show_source(run, latent, key=f"{key}source")
    uses, tokens = int(latent.tokens), int(run.explored_tokens)
    density, strongest, where = st.columns(3)
    density.metric(
        "tokens that use it", f"{latent.density:.2%}", help=f"{uses:,} of {tokens:,} explored"
    )
    strongest.metric("strongest coefficient", f"{latent.strongest:.2f}")
    where.metric("layer", f"{run.layer} of {run.n_layers - 1}", help=literal(run.model))
    if not uses:
        st.info(_why_unused(run))
        return
    if is_page:
        _show_chosen_uses(run, latent, f"{key}uses", most_uses)
    else:
        st.markdown("##### Strongest uses")
        uses_shown = explorer().store.strongest_uses(run.run_id, int(latent.latent), most_uses)
        _show_uses(run, latent, uses_shown, f"{key}uses", is_page=False)
    st.markdown("##### Coefficients")
    coefficients = explorer().store.coefficients(run.run_id, int(latent.latent))
    negative = int((coefficients < 0).sum())
    rank = explorer().store.rank(run.run_id, int(latent.latent))
    st.caption(
        f"Used on {uses:,} of {tokens:,} tokens ({latent.density:.2%}), which is place {rank:,} of "
        f"{int(run.atoms):,}; negative on {negative:,}."
    )
    st.plotly_chart(coefficient_histogram(coefficients.to_numpy()), key=f"{key}histogram")
    if is_page:
        _offer_files(run, latent)


def _offer_files(run, latent: pd.Series) -> None:
    number = int(latent.latent)
    files, reproduced = st.columns(2)
    with files.popover("Export this latent", width="stretch"):
        st.markdown("**Every explored token that uses it**")
        about = {"run": run.run_id, "model": run.model, "layer": int(run.layer), "latent": number}
        offer_downloads(
            lambda: explorer().store.uses_of(run.run_id, number),
            about | {"source_prompt": latent.prompt_id, "source_position": int(latent.position)},
            f"uses-{run.run_id}-{number}",
            "uses_file",
        )
        st.markdown("**Its atom**, a unit vector")
        st.download_button(
            "safetensors",
            lambda: atom_file(loaded_dictionary(run.directory), number, about),
            file_name=f"atom-{run.run_id}-{number}.safetensors",
            mime="application/octet-stream",
            on_click="ignore",
        )
    with reproduced.popover("Reproduce", width="stretch"):
        show_lines(latent_lines(run.directory, number))


def _why_unused(run) -> str:
    if run.kind == "sae":
        return (
            "No explored token activates this latent. The token above is the one that comes "
            "nearest to it."
        )
    return "No explored token uses this latent: another atom is always nearer."


def _show_source(run, latent: pd.Series, key: str) -> None:
    """The source or strongest token boxed in its context; the whole prompt on demand."""
    spans = explorer().store.token_spans(run.run_id, latent.prompt_id)
    position = int(latent.position)
    if position >= len(spans):  # it was not read for this dictionary
        spans, position = [(int(latent.start), int(latent.end))], 0
    text = latent.text[: max(end for _, end in spans)]  # the rest may be a whole book
    hovers = [""] * len(spans)
    hovers[position] = f"{latent.token!r}, token {position} of prompt {latent.prompt_id}"
    names = _special_names(spans)
    names[position] = latent.token
    row = token_row(
        text,
        spans,
        np.zeros(len(spans)),
        hovers,
        boxed=position,
        around=_SOURCE_TOKENS,
        title=latent.title,
        names=names,
    )
    show_rows([row], key=key)


def _special_names(spans: list[tuple[int, int]]) -> list[str]:
    """What stands for the tokens without characters."""
    return ["" if end > start else "[special]" for start, end in spans]


def _show_chosen_uses(run, latent: pd.Series, key: str, most: int) -> None:
    """The strongest uses, or some of each quarter; of both signs or one."""
    title, which, sign_place = st.columns([2, 2.2, 1.8], vertical_alignment="center")
    which_uses = which.segmented_control(
        "Which uses",
        ["Strongest", "Whole range"],
        default="Strongest",
        required=True,
        label_visibility="collapsed",
        key="which_uses",
    )
    sign = sign_place.segmented_control(
        "Of which sign",
        list(_SIGNS),
        format_func=_SIGNS.get,
        default=0,
        required=True,
        label_visibility="collapsed",
        key="sign",
    )
    store, number = explorer().store, int(latent.latent)
    if which_uses == "Strongest":
        title.markdown("##### Strongest uses")
        uses = store.strongest_uses(run.run_id, number, most, sign)
        _show_uses(run, latent, uses, key)
    else:
        title.markdown("##### Uses by quarter")
        uses = store.banded_uses(run.run_id, number, _BANDS, _OF_EACH_BAND, sign)
        _show_bands(run, latent, uses, key)
    if uses.empty:
        st.caption("No explored token uses it with this sign.")


def _show_bands(run, latent: pd.Series, uses: pd.DataFrame, key: str) -> None:
    for band, rows in uses.groupby("band"):
        first = rows.iloc[0]
        share = 1 / uses["band"].nunique()
        st.caption(
            f"|coefficient| {first.low:.2f}–{first.high:.2f} · {share:.0%} of its uses "
            f"({int(first.uses):,} tokens)"
        )
        _show_uses(run, latent, rows, f"{key}_{band}")


def _show_uses(run, latent: pd.Series, uses: pd.DataFrame, key: str, is_page: bool = True) -> None:
    if uses.empty:
        return
    store, number = explorer().store, int(latent.latent)
    prompts = uses["prompt_id"].unique().tolist()
    everywhere = store.uses_in_prompts(run.run_id, number, prompts)
    by_prompt = dict(list(everywhere.groupby("prompt_id")))
    rows = [
        _use_row(use, by_prompt[use.prompt_id], latent.strongest, is_page)
        for use in uses.itertuples()
    ]
    opened = show_rows(fold_twins(rows), key=key)
    if opened is not None:
        use = uses.iloc[opened]
        where = {"prompt": use.prompt_id, "token": str(use.position)}
        st.switch_page("pages/decompose.py", query_params={"run": run.run_id, **where})


def _use_row(use, in_prompt: pd.DataFrame, largest: float, opens: bool) -> dict:
    spans = list(zip(use.starts.tolist(), use.ends.tolist(), strict=True))
    text = use.text[: max(use.ends) + 1]  # the part that was read; the rest may be a whole book
    coefficients = np.zeros(len(spans))
    coefficients[in_prompt["position"].to_numpy()] = in_prompt["coefficient"].to_numpy()
    hovers = [
        f"{text[start:end]!r}\ncoefficient {value:+.4f}" if value else ""
        for (start, end), value in zip(spans, coefficients, strict=True)
    ]
    return token_row(
        text,
        spans,
        strength(coefficients, largest),
        hovers,
        boxed=int(use.position),
        around=_CONTEXT_TOKENS,
        chip=f"{use.coefficient:+.2f}",
        title=use.title,
        names=_special_names(spans),
        signed=True,
        opens=opens,
    )
