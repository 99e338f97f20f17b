"""Steer: a latent's atom added while the model writes on, plain and steered side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.steering import (
    LONGEST,
    Writing,
    WrittenToken,
    steering_sum,
    usual_norm,
    why_not_written_on,
    write_on,
)
from itda_core.settings import MAX_SEED, RESID_POST, Setting
from pages.components.cached import loaded_model, loaded_run, model_and_dictionary
from pages.components.decompose.proposal import RULE, proposed_latent
from pages.components.decompose.steered_latents import (
    Weights,
    ask_for_others,
    find_latents,
    take_chosen,
)
from pages.components.decompose.written import Written, judge, offer_written, read_with, show_text
from pages.components.explorer import explorer
from pages.components.frame import tiled
from pages.components.in_sight import bring_into_sight, note_act
from pages.components.number_field import linked_number_field, read_numbers
from pages.components.run_names import layer_of
from pages.components.text import escaped, literal, snippet
from pages.components.url import follow_url_number, keep, write_url

_SEED = Setting("seed", "Seed", min=0, max=MAX_SEED)
_STRENGTHS = tuple(quarter / 4 for quarter in range(-4, 5))
_TEXT_PIXELS = 220


@dataclass(frozen=True)
class Steering:
    """What is asked for."""

    latent: int
    strength: float
    writing: Writing
    others: Weights
    """steered with beside the latent, by weight"""
    texts: tuple[float, ...]
    """the strengths of the texts to be written now; none where no button was just pressed"""
    stop: DeltaGenerator
    """where the button is that stops it"""


def ask_for_steering(
    run, result: Decomposition, latents: pd.DataFrame, row: int | None
) -> Steering | None:
    """Beside the text; None where a sentence says why it can't be steered, or what is wrong.
    latents: of `latents_of`; row: of the locked token, of whose latents one is proposed."""
    model = loaded_model(loaded_run(run.directory).config.model)
    if reason := why_not_written_on(model):
        st.info(literal(reason))
        return None
    take_chosen()
    asked = _ask(run, result, latents, row)
    find_latents(run)
    others = ask_for_others(run, asked[0]) if asked else {}
    write, in_a_row, stop = st.columns([1, 1.4, 0.8])
    options = {"width": "stretch", "disabled": asked is None}
    is_pair = write.button("Generate", type="primary", key="write", **options)
    is_row = in_a_row.button("Strengths from −1 to 1", key="write_row", **options)
    place = stop.empty()
    where = f"{'the output of ' if run.site == RESID_POST else ''}{layer_of(run)}"
    st.caption(
        "The text goes on, once as the model is and once with the atom of a latent added to "
        f"{where} at every token but the first. A strength of 1 makes it as large as the "
        "activations there (their median norm)."
    )
    if asked is None:
        _offer_stop(place, is_writing=False)
        return None
    if is_row or is_pair:
        note_act("generate")
    texts = _STRENGTHS if is_row else (0.0, asked[1]) if is_pair else ()
    _offer_stop(place, is_writing=bool(texts))
    return Steering(*asked, others, texts, place)


def show_steered(run, result: Decomposition, steering: Steering) -> None:
    """Below the text: what the model writes now, or has written last. steering: of
    `ask_for_steering`."""
    latent, writing, others = steering.latent, steering.writing, steering.others
    bring_into_sight("generate")
    if not steering.texts:
        _show_written(run, result.text, (latent, writing, others), steering.strength)
        return
    st.session_state["written"] = Written(run.run_id, result.text, latent, writing, others)
    _write(run, result.text, steering.texts, writing)
    _offer_stop(steering.stop, is_writing=False)


def _offer_stop(place: DeltaGenerator, is_writing: bool) -> None:
    """The button that stops the model, which can be pressed while it writes alone."""
    key = "stop_writing" if is_writing else "nothing_to_stop"
    place.button(
        "Stop",
        width="stretch",
        help="What was generated so far stays.",
        disabled=not is_writing,
        key=key,
    )


def _ask(
    run, result: Decomposition, latents: pd.DataFrame, row: int | None
) -> tuple[int, float, Writing] | None:
    """Latent, strength and how to write; None where a sentence says what is wrong with them."""
    proposed = proposed_latent(run, latents if row is None else result.terms(row))
    _fit_to_dictionary(run, proposed)
    keep("steer")
    latent = Setting("latent", "Latent", min=0, max=int(run.atoms) - 1)
    number, propose = st.columns(2, vertical_alignment="bottom")
    latent_text = linked_number_field(
        number,
        latent,
        "steer",
        proposed,
        help="What you or a link chose stays when the text changes; the button proposes another.",
    )
    propose.button(
        f"Use the proposed one, {proposed}",
        on_click=_take,
        args=[proposed],
        disabled=latent_text == str(proposed),
        key="take_proposed",
        help=RULE,
        width="stretch",
    )
    source = st.empty()
    first, second = st.columns(2), st.columns(2)
    strength = _number(first[0].slider, "Strength", "strength", (-3.0, 3.0, 0.5, 0.25))
    count = _number(first[1].slider, "Tokens", "tokens", (5, LONGEST, 40, 5))
    temperature = _number(
        second[0].slider,
        "Temperature",
        "temperature",
        (0.0, 1.5, 0.0, 0.1),
        help="0 is always the likeliest.",
    )
    seed_text = linked_number_field(second[1], _SEED, "seed", 0, disabled=temperature == 0)
    numbers = read_numbers({latent: latent_text, _SEED: seed_text})
    if numbers is None:
        return None
    source.caption(_source(run, numbers["latent"]))
    return numbers["latent"], strength, Writing(count, temperature, numbers["seed"])


def _take(latent: int) -> None:
    st.session_state["steer"] = latent


def _fit_to_dictionary(run, proposed: int) -> None:
    """A number means another latent in another dictionary, or none: that is said."""
    was = st.session_state.get("_steer_of", run.run_id)
    st.session_state["_steer_of"] = run.run_id
    chosen = st.session_state.get("steer")
    if not str(chosen).isdecimal() or was == run.run_id:
        return
    if int(chosen) < run.atoms:
        st.info(
            f"Latent {int(chosen)} was chosen in another dictionary; here it has another source."
        )
    else:
        st.session_state["steer"] = proposed
        st.info(f"There is no latent {chosen} in this dictionary: latent {proposed} is proposed.")


def _number(widget, label: str, name: str, scale: tuple, **options):
    """A number that follows the link. scale: least, most, default, step."""
    low, high, default, step = scale
    keep(name)
    follow_url_number(name, low, high, default)
    value = widget(label, low, high, step=step, key=name, **options)
    write_url(name, value)
    return value


def _source(run, latent: int) -> str:
    table = explorer().store.latents.table(run.run_id, [latent])
    if table.empty:
        return ""
    source = table.iloc[0]
    return escaped(snippet(source.text, source.start, source.end, around=40))


def _write(run, text: str, strengths: tuple[float, ...], writing: Writing) -> None:
    """Write all texts token by token, each as far as the others; a rerun of the page ends it."""
    places = {
        strength: place.empty()
        for strength, place in zip(strengths, _places(strengths), strict=True)
    }
    written = st.session_state["written"]
    for strength, place in places.items():  # a sign of life, before the model has read the text
        written.texts[strength] = []
        with place.container():
            show_text([], strength, is_final=False)
    writing = read_with(writing, len(strengths))
    writers = _writers(run, text, strengths, writing)
    while writers:
        for strength, writer in list(writers.items()):
            token = next(writer, None)
            if token is None:
                del writers[strength]
                continue
            written.texts[strength].append(token)
            with places[strength].container():
                show_text(written.texts[strength], strength, is_final=False)
    written.is_whole = True
    judge(run, written)
    for strength, place in places.items():
        with place.container():
            show_text(written.texts[strength], strength, written.judged[strength])
    offer_written(written)


def _writers(
    run, text: str, strengths: tuple[float, ...], writing: Writing
) -> dict[float, Iterator[WrittenToken]]:
    """What writes each text. Steered ones come first: they are what is waited for."""
    model, dictionary = model_and_dictionary(run.directory)
    model = model.at(run.site)
    latent, norm = st.session_state["written"].latent, usual_norm(model, dictionary, text)
    weights = {latent: 1.0, **st.session_state["written"].others}
    vectors = {
        strength: (run.layer, steering_sum(dictionary, weights, strength, norm))
        for strength in strengths
    }
    return {
        strength: write_on(model, text, writing, vectors[strength] if strength else None)
        for strength in sorted(strengths, key=lambda one: one == 0)
    }


def _show_written(run, text: str, asked: tuple[int, Writing, Weights], strength: float) -> None:
    """What was written last of this text, also where it was stopped. asked: latent, how to write
    and the other latents."""
    written = st.session_state.get("written")
    if not written or (written.run_id, written.text) != (run.run_id, text):
        return
    is_row = len(written.texts) > 2
    if (written.latent, written.writing, written.others) != asked or not (
        is_row or strength in written.texts
    ):
        st.caption("Generated with other settings than those above. Generate again to use them.")
    judge(run, written)
    for place, (strength, tokens) in zip(
        _places(tuple(written.texts)), written.texts.items(), strict=True
    ):
        with place:
            show_text(tokens, strength, written.judged[strength], is_whole=written.is_whole)
    offer_written(written)


def _places(strengths: tuple[float, ...]) -> list:
    """One for each text; where there are many, as many in a row as have room."""
    if len(strengths) == 2:
        return [column.container() for column in st.columns(2, gap="medium")]
    with tiled("strengths", _TEXT_PIXELS):
        return [st.container() for _ in strengths]
