"""A dictionary that moves to another model or layer: the form, and where a moved one is from."""

import functools

import streamlit as st

from itda_core.config import ModelSpec, TrainConfig
from itda_core.errors import InputError
from itda_core.jobs.submissions import submit_move
from itda_core.model.built_in import BUILT_IN
from itda_core.runs.run import Run
from itda_core.settings import SETTINGS
from pages.components.cached import loaded_dictionary, loaded_run
from pages.components.explorer import explorer
from pages.components.exposure import check_no_path
from pages.components.job_offer import answer
from pages.components.text import literal, sentence

_TITLE = "Move to another model or layer"
_ABOUT = (
    "Every latent is a token in a text, so another model that reads the same texts has it too. The "
    "new dictionary has the same latents under the same numbers; nothing is chosen anew."
)
_OPEN = "_moving"
"""In the session: of which run the form is open"""
_WIDTH = 640
"""Of the form in pixels, or less where the page has less: fields as wide as Overview look empty"""
_NOT_OF_TOKENS = "The latents of an autoencoder are no tokens, so that no other model has them."


def offer_move(run) -> None:
    """A button that opens the form below it, and closes it. run: a row of Store.runs.table()."""
    is_of_tokens = run.kind == "itda"
    st.button(
        f"{_TITLE} …",
        key=f"move_{run.run_id}",
        on_click=_open_or_close,
        args=[run.run_id],
        disabled=not is_of_tokens,
        help=None if is_of_tokens else _NOT_OF_TOKENS,  # it would lie over the form
    )
    if st.session_state.get(_OPEN) == run.run_id:
        with st.container(border=True, width=_WIDTH):
            _show_form(loaded_run(run.directory))


def _open_or_close(run_id: str) -> None:
    is_open = st.session_state.get(_OPEN) == run_id
    st.session_state[_OPEN] = None if is_open else run_id


def _show_form(run: Run) -> None:
    st.caption(_ABOUT)
    try:
        config, place = _ask(run)
        _show_needs(run, config, place)
    except InputError as error:
        st.warning(sentence(error))
        config = None
    is_clicked = st.button("Move", type="primary", key="move_now", disabled=config is None)
    if is_clicked and config is not None:
        job = submit_move(explorer().queue, run, config, *place)
        st.session_state[_OPEN] = None
        answer(job)


def _ask(run: Run) -> tuple[TrainConfig, tuple[str, int | None]]:
    """Where to, and the device and memory. Raises InputError for what is missing or wrong."""
    # Here, since they bring torch in: what there is to move is shown without.
    from itda_core.model.model_info import known_models
    from itda_core.training.moving import check_elsewhere, move_config, moved_model
    from pages.components.device_choice import ask_for_device, ask_for_memory
    from pages.components.train.site import ask_for_site

    own = run.config.model
    names = dict.fromkeys([own.name, *(model["model"] for model in known_models())])
    first, second = st.columns([2, 1])
    name = first.selectbox(
        SETTINGS["model"].label,
        [*names],
        accept_new_options=True,
        key="move_model",
        help=SETTINGS["model"].advice,
    )
    revision = second.text_input(
        SETTINGS["revision"].label,
        key="move_revision",
        placeholder=own.revision if name == own.name and own.revision else "the newest",
        disabled=name in BUILT_IN,
        help=SETTINGS["revision"].page_help,
    )
    if name != own.name:
        check_no_path(name)
    typed = "" if name in BUILT_IN else (revision or "").strip()
    model = moved_model(run, name, typed or None)
    layers = _ask_for_layers(run, model)
    above = st.container()  # fields in the order of a training's, of which the place is asked last
    device = ask_for_device("move_device")
    memory = ask_for_memory("move_memory", device)
    with above:
        site = ask_for_site(model, device, memory, "move_site", run.site)
    if site is None:
        raise InputError("Choose a place in the block that the model has.")
    check_elsewhere(run, model, layers, site)
    dictionary = loaded_dictionary(str(run.directory))
    return move_config(run, model, layers, site, dictionary), (device, memory)


def _ask_for_layers(run: Run, model: ModelSpec) -> tuple[int, ...]:
    from itda_core.model.model_info import model_shape

    label, shape = SETTINGS["layers"].label, model_shape(model)
    if shape is None:
        text = st.text_input(label, str(run.layer), key="move_layers_text")
        try:
            return tuple(int(part) for part in text.split(",") if part.strip())
        except ValueError:
            raise InputError(f"Layers are numbers such as 3,5; got {text!r}.") from None
    is_there = model.name != run.config.model.name and run.layer < shape.n_layers
    chosen = st.multiselect(
        f"{label} (0 to {shape.n_layers - 1})",
        range(shape.n_layers),
        default=[run.layer] if is_there else [],
        key=f"move_layers_{model.name}",
        help="One dictionary for each, in one pass.",
    )
    return tuple(chosen)


def _show_needs(run: Run, config: TrainConfig, place: tuple[str, int | None]) -> None:
    from itda_core.jobs.estimate import estimate_move
    from itda_core.training.moving import tokens_read
    from pages.components.train.needs import show_needs

    explored = run.metrics["explored_tokens"]
    others = tokens_read(run) - explored
    st.caption(
        f"It reads the {explored:,} explored tokens and {others:,} others of prompts that hold "
        "sources, and encodes the explored ones. No atoms are chosen."
    )
    show_needs(config, *place, estimated=functools.partial(estimate_move, run))


def show_origin(run) -> None:
    """Where a moved dictionary is from, with links to what is still there, and what was left out.
    Nothing of one that was trained. run: a row of Store.runs.table()."""
    found = loaded_run(run.directory)
    origin = found.config.moved_from
    if origin is None:
        return
    here = set(explorer().store.runs.table()["run_id"])
    for step, one in enumerate(origin.chain):
        told = f"{'Moved from' if step == 0 else 'which was moved from'} {one.in_words}"
        if one.run_id in here:
            query = {"run": one.run_id}
            st.page_link("pages/latents.py", label=literal(told), query_params=query)
        else:
            st.caption(literal(f"{told} ({one.run_id}, which is no longer here)"))
    moved = found.about.get("moved", {})
    left_out, together = moved.get("left_out", []), moved.get("together", [])
    told = []
    if left_out:
        reasons = dict.fromkeys(one["why"] for one in left_out)
        numbers = ", ".join(str(one["latent"]) for one in left_out[:10])
        more = ", …" if len(left_out) > 10 else ""
        told = [f"Left out: {len(left_out):,} latents ({numbers}{more}): {'; '.join(reasons)}."]
    if together:
        n_met = sum(len(latents) for latents in together)
        told.append(f"{n_met:,} latents share {len(together):,} tokens, and so their atoms.")
    if told:
        st.caption(literal(" ".join(told)))
