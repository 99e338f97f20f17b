"""What if: terms changed in a table, and what the model predicts then, on the Decompose page."""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.what_if import Edit, Unedited, WhatIf, unedited_steps, what_if_steps
from pages.components.cached import loaded_model, loaded_run, model_and_dictionary
from pages.components.charts.camera import picture_config
from pages.components.charts.what_if import divergence_by_token
from pages.components.computed import Kept, computed, is_asked_for
from pages.components.decompose.decomposed import OF_TEXT
from pages.components.decompose.edits import as_dicts, ask_for_edits, edits_in_words
from pages.components.decompose.tries import remember_try, show_tries
from pages.components.downloads import offer_downloads
from pages.components.reproduce import show_lines, what_if_lines
from pages.components.text import literal, quoted, token_label
from pages.components.url import choose, follow_url, write_url

_MOST_CHANGED = 5
_MOST_KEPT = 2**24
"""Numbers of a text's predictions, tokens × vocabulary: 64 MiB, kept twice while it is edited"""
_ONTO = {"activation": "the activation", "reconstruction": "the reconstruction"}
_COMPARED = {
    "activation": ("plain", "edit − as it is"),
    "reconstruction": ("reconstruction", "edit − reconstruction"),
}
"""What an edit is compared with: the column of its next tokens, and the title of the change"""
_HOW = "×0 removes a latent, ×2 doubles it, −1 turns it round; the same again takes it back."
_ANSWER_CSS = ".st-key-answer { min-height: 4.7rem; }"
"""Room for three lines, so that a longer answer does not move the buttons below it"""


@dataclass(frozen=True)
class Asked:
    """Edits, and the place beside their buttons for a sentence on what they change."""

    edits: tuple[Edit, ...]
    answer: DeltaGenerator


def show_edits(run, result: Decomposition, latents: pd.DataFrame, row: int | None) -> Asked | None:
    """Beside the text: the terms of the locked token, or the latents of the whole text, to be
    changed. None where a sentence says why the model can't be edited. latents: of `latents_of`;
    row: of the locked token."""
    model = loaded_model(loaded_run(run.directory).config.model)
    if reason := model.why_not("splicing"):
        st.info(literal(reason))
        return None
    st.html(f"<style>{_ANSWER_CSS}</style>")
    with st.container(key="answer"):
        answer = st.empty()
    edits = ask_for_edits(run, result, latents, row)
    if not edits:
        alone = " Lock a token to change its terms alone." if row is None else ""
        answer.caption(f"Nothing is changed yet. {_HOW}{alone}")
    return Asked(edits, answer)


def show_what_if(
    run, result: Decomposition, asked: Asked, latents: pd.DataFrame, row: int | None
) -> None:
    """Below the text: the next token before and after. asked: of `show_edits`; latents: of
    `latents_of`; row: of the locked token."""
    edits = asked.edits
    left, right = st.columns([3, 2], gap="large")
    with right:
        position, onto = _ask_where(result, row)
        outcome = _computed(run.directory, result, edits, position, onto)
        if outcome is not None:
            _show_divergences(outcome, position, onto)
            _show_most_changed(result, outcome)
    if outcome is not None:
        names = {row.latent: token_label(row.source_token) for row in latents.itertuples()}
        remember_try(run, result, edits, onto, outcome, names)
        if edits:
            told = answer_in_words(result, outcome, edits_in_words(edits, names))
            asked.answer.markdown(literal(told), help=_HOW)
        with left:
            _show_next_tokens(result, outcome, position, onto)
        st.plotly_chart(
            divergence_by_token(
                outcome, [token_label(result.token_text(n)) for n in range(len(result.spans()))]
            ),
            config=picture_config(f"what-if-{run.run_id}"),
            key="divergence",
        )
        _offer_files(run, result, edits, position, onto, outcome)
    elif edits:
        asked.answer.caption("Press Predict, below the text, to see what it changes.")
    show_tries(run, result)


def answer_in_words(result: Decomposition, outcome: WhatIf, edits: str) -> str:
    """What edits change, in a sentence or two: where they change most, and whether that is more
    than the error of the reconstruction. edits: of `edits_in_words`."""
    after = int(np.argmax(outcome.kl_edit))
    effect, error = float(outcome.kl_edit[after]), float(outcome.kl_reconstruction[after])
    if effect <= 0:
        return f"{edits} changes no prediction."
    before, then = (quoted(outcome.likeliest[name][after]) for name in ("before", "after"))
    likeliest = f"stays {before}" if before == then else f"was {before} and is {then}"
    told = (
        f"{edits} changes most what comes after {after}: {quoted(result.token_text(after))} "
        f"(KL {_nats(effect)}): the likeliest next token {likeliest}."
    )
    if effect >= error:
        return told
    return f"{told} Putting the reconstruction in changes more there ({_nats(error)})."


def _nats(kl: float) -> str:
    return f"{kl:.3f} nats" if kl >= 0.001 else "under 0.001 nats"


def _ask_where(result: Decomposition, row: int | None) -> tuple[int, str]:
    length = len(result.spans())
    first = length - 1 if row is None else int(result.positions[row])
    scope = (result.text, row)
    if st.session_state.get("_after_of", scope) != scope or "after" not in st.query_params:
        st.session_state["after"] = first
        write_url("after", first)
    st.session_state["_after_of"] = scope
    follow_url("after", list(range(length)))
    position = st.selectbox(
        "The next token after",
        range(length),
        format_func=lambda n: f"{n}: {token_label(result.token_text(n))}",
        key="after",
        help="The predictions after this token are listed below.",
    )
    write_url("after", position)
    onto = choose(
        st.segmented_control,
        "Put the change into",
        _ONTO,
        "onto",
        required=True,
        help="The activation keeps what the latents leave out. The reconstruction is the latents "
        "alone, so that its own error comes on top of the change.",
    )
    return position, onto


def _computed(
    directory: str, result: Decomposition, edits: tuple[Edit, ...], position: int, onto: str
) -> WhatIf | None:
    """None where it is not asked for yet, of a model that is read block by block."""
    model, dictionary = model_and_dictionary(directory)
    vocabulary, layer = len(model.tokenizer), dictionary.hook_point.layer
    outcome = _outcome(directory, result, edits, position, onto)
    unedited = _unedited(directory, result)
    is_kept = len(result.spans()) * vocabulary <= _MOST_KEPT
    cost = f"blocks {layer + 2:,} to {model.n_layers:,}" if unedited.value else "all blocks"
    is_free = unedited.value is not None and not edits
    if not (is_free or is_asked_for(model, outcome, "Predict", cost, "predict")):
        return None
    of_text, before = (model, dictionary, result), None
    if is_kept and outcome.value is None:
        steps = functools.partial(unedited_steps, *of_text)
        before = computed(unedited, model, steps, range(model.n_layers))
    steps = functools.partial(what_if_steps, *of_text, edits, position, onto, before)
    return computed(outcome, model, steps, range(layer + 1 if before else 0, model.n_layers))


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=OF_TEXT)
def _outcome(
    directory: str, result: Decomposition, edits: tuple[Edit, ...], position: int, onto: str
) -> Kept[WhatIf]:
    return Kept(directory, result, edits, position, onto)


@st.cache_resource(max_entries=1, show_spinner=False, hash_funcs=OF_TEXT)
def _unedited(directory: str, result: Decomposition) -> Kept[Unedited]:
    """What stays while edits of one text are tried."""
    return Kept(directory, result)


def _show_divergences(outcome: WhatIf, position: int, onto: str) -> None:
    """KL after the chosen token, in nats."""
    edit, reconstruction = st.columns(2)
    edit.metric(
        "KL of the edit",
        f"{outcome.kl_edit[position]:.4f}",
        help="What the change does to the next token after the chosen one, in nats: against the "
        + ("model as it is." if onto == "activation" else "reconstruction."),
    )
    reconstruction.metric(
        "KL of the reconstruction",
        f"{outcome.kl_reconstruction[position]:.4f}",
        help="What putting the sum of latents in the activation's place does by itself, without "
        "any change. An edit with a smaller effect says little.",
    )
    if told := _verdict(outcome, position):
        st.caption(told)


def _show_most_changed(result: Decomposition, outcome: WhatIf) -> None:
    """The tokens after which the predictions changed most; one that is pressed is looked at."""
    order = np.argsort(-outcome.kl_edit, kind="stable")[:_MOST_CHANGED]
    order = [int(n) for n in order if outcome.kl_edit[n] > 0]
    if not order:
        return
    st.caption("The edit changes most after")
    with st.container(horizontal=True):
        for number in order:
            name = literal(
                f"{number}: {token_label(result.token_text(number))} {outcome.kl_edit[number]:.3f}"
            )
            st.button(name, on_click=_look_after, args=[number], key=f"most_changed_{number}")


def _look_after(number: int) -> None:
    st.session_state["after"] = number


def _verdict(outcome: WhatIf, position: int) -> str:
    """What the two divergences after a token say of the edit; "" where there is none."""
    effect, error = outcome.kl_edit[position], outcome.kl_reconstruction[position]
    if not outcome.changed.size:
        return ""
    if position < outcome.changed.min():
        return (
            f"The first changed token is {int(outcome.changed.min())}: predictions before it "
            "stay as they are."
        )
    if effect < error:
        return "The edit changes less here than putting the reconstruction in does: it says little."
    if not error:
        return "Putting the reconstruction in changes nothing here."
    return (
        f"The edit changes {effect / error:.1f} times as much here as putting the reconstruction "
        "in does."
    )


def _show_next_tokens(result: Decomposition, outcome: WhatIf, position: int, onto: str) -> None:
    st.markdown(f"##### What comes after {literal(repr(result.token_text(position)))}")
    columns = ("plain", "reconstruction", "edited")
    compared, title = _COMPARED[onto]
    shown = outcome.next_tokens.assign(
        token=outcome.next_tokens["token"].map(token_label),
        change=100 * (outcome.next_tokens["edited"] - outcome.next_tokens[compared]),
        **{name: 100 * outcome.next_tokens[name] for name in columns},
    )
    if outcome.changed.size:  # what the edit changed most stands first
        shown = shown.iloc[np.argsort(-shown["change"].abs(), kind="stable")]
    bar = {"format": "%.1f %%", "min_value": 0.0, "max_value": 100.0}
    st.dataframe(
        shown,
        column_order=["token", "plain", "reconstruction", "edited", "change"],
        column_config={
            "token": st.column_config.TextColumn("next token", pinned=True),
            "plain": st.column_config.ProgressColumn("as it is", **bar),
            "reconstruction": st.column_config.ProgressColumn("reconstruction alone", **bar),
            "edited": st.column_config.ProgressColumn("with the edit", **bar),
            "change": st.column_config.NumberColumn(title, format="%+.2f points"),
        },
        placeholder="–",
        hide_index=True,
        key="next_tokens",
    )


def _offer_files(
    run, result: Decomposition, edits: tuple, position: int, onto: str, outcome
) -> None:
    l0 = result.codes.l0
    about = {"run": run.run_id, "l0": l0, "prompt": result.text, "after_token": position}
    about |= {"onto": onto, "edits": as_dicts(edits)}
    files, reproduced = st.columns(2)
    with files.popover("Export the predictions", width="stretch"):
        offer_downloads(outcome.next_tokens, about, f"what-if-{run.run_id}", "what_if_file")
    with reproduced.popover("Reproduce the predictions", width="stretch"):
        show_lines(what_if_lines(run.directory, result.text, l0, edits, position, onto))
