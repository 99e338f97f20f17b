"""Train: the settings of a training, its progress, and the dictionaries there are."""

import contextlib

import streamlit as st

from itda_core.activations.recorded import folder_config
from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.settings import MEMORY
from pages.components.explorer import explorer
from pages.components.frame import or_sentence, page
from pages.components.job_offer import answer, last_queued
from pages.components.job_panel import show_ended_jobs, watch_active_jobs
from pages.components.job_title import job_title
from pages.components.number_field import read_numbers
from pages.components.text import literal
from pages.components.train.abilities import show_abilities
from pages.components.train.dictionaries import show_dictionaries
from pages.components.train.fields import (
    Place,
    ask_for_corpus,
    ask_for_layers,
    ask_for_model,
    ask_for_numbers,
    ask_for_place,
)
from pages.components.train.folder import (
    ask_for_folder,
    ask_for_layers_of,
    ask_for_site_of,
    ask_for_source,
    show_fewer_tokens,
)
from pages.components.train.list import ask_for_list, show_needs_of_list
from pages.components.train.method import ask_for_selection
from pages.components.train.needs import show_needs
from pages.components.train.site import ask_for_site
from pages.components.train.stopped import show_stopped
from pages.components.train.upload_tokens import (
    as_far_as_there_are,
    check_has_tokens,
    fewer_in_words,
)
from pages.components.url import keep


def show() -> None:
    st.title("Train")
    watch_active_jobs()
    settings, trained = st.columns([3, 2], gap="large")
    with settings:
        st.subheader("A new training")
        place = _show_settings()
    with trained:
        show_stopped(place)
        st.subheader("Dictionaries")
        show_dictionaries()
        st.subheader("Past trainings")
        show_ended_jobs("training", "None that was started on these pages, or all are forgotten.")
        if any(job.kind == "move" and not job.is_active for job in explorer().queue.jobs()):
            st.subheader("Past moves")
            show_ended_jobs("move", "")


_FIELDS = ("model", "layers_text", "site", "corpus_kind", "corpus", "corpus_name")
_FIELDS += ("selection", "pursuit", "budget", "offset", "dtype", "revision", "skip_first")
_FIELDS += ("memory", "activations", "list_text", "source", "corpus_column", "device", "ray")
"""Of the form, by their keys: those that have one key"""


def _show_settings() -> Place | None:
    """The form of a new training; where it runs as it stands there, None where that is wrong."""
    # A look at a list, or at another page, draws none of these: Streamlit would forget them.
    keep(*_FIELDS)
    source = ask_for_source()
    if source == "list":
        return _show_list()
    config = _ask_for_config_of_folder() if source == "folder" else _ask_for_config()
    if config and not or_sentence(_is_trainable, config):
        config = None
    place = or_sentence(ask_for_place, source)
    is_ready = None not in (config, place)
    if is_ready and (told := fewer_in_words(config)):
        st.caption(told)
    if is_ready:
        is_ready = or_sentence(show_needs, as_far_as_there_are(config), *place) is not False
    is_clicked = st.button("Start training", type="primary", disabled=not is_ready)
    if is_clicked and is_ready:
        answer(explorer().queue.submit(config, *place))
    _say_what_started()
    return place


def _say_what_started() -> None:
    """A line while the job that was queued here is active: its card is out of sight, above."""
    job = last_queued("training")
    if job is not None:
        words = "is queued" if job.state == "queued" else "runs"
        title = literal(job_title(job))
        st.success(f"**{title}** {words}. Its progress is at the top of this page.")


def _is_trainable(config: TrainConfig) -> bool:
    """True; raises InputError where the settings, or the upload, make no training."""
    config.check()
    check_has_tokens(config)
    return True


def _show_list() -> Place | None:
    """The form of several trainings."""
    found = or_sentence(ask_for_list)
    place = or_sentence(ask_for_place, "list")
    is_ready = None not in (found, place)
    if is_ready:
        or_sentence(show_needs_of_list, found[1], *place)
    is_clicked = st.button("Start trainings", type="primary", disabled=not is_ready)
    if is_clicked and is_ready:
        answer(explorer().queue.submit_list(found[0], *place))
    _say_what_started()
    return place


def _typed_memory() -> int | None:
    """What stands in the field for memory, which is drawn further down; None where it is wrong,
    which is told there."""
    with contextlib.suppress(InputError):
        text = st.session_state.get("memory") or ""
        return MEMORY.read(text) if text.strip() else None


def _ask_for_config() -> TrainConfig | None:
    """None while something is missing, or wrong: then with a sentence about it. All fields are
    drawn all the same, so that none forgets what was typed."""
    model = or_sentence(ask_for_model)
    device = st.session_state.get("device")
    is_usable = model is not None and or_sentence(show_abilities, model, device, _typed_memory())
    layers = or_sentence(ask_for_layers, model)
    site = ask_for_site(model, device, _typed_memory())
    corpus = or_sentence(ask_for_corpus, model)
    texts, others = ask_for_numbers(ask_for_selection())
    numbers = read_numbers(texts)
    if not is_usable or None in (layers, site, corpus, numbers):
        return None
    chosen = {"model": model, "corpus": corpus, "layers": layers, "site": site}
    return or_sentence(TrainConfig, **chosen, **numbers, **others)


def _ask_for_config_of_folder() -> TrainConfig | None:
    """The same of a training from activations that were captured before."""
    folder = or_sentence(ask_for_folder)
    layers = ask_for_layers_of(folder) if folder else None
    site = ask_for_site_of(folder) if folder else None
    texts, others = ask_for_numbers(ask_for_selection(), folder)
    numbers = read_numbers(texts)
    if not layers or numbers is None:
        return None
    config = or_sentence(folder_config, folder, layers=layers, site=site, **numbers, **others)
    if config:
        show_fewer_tokens(folder, config)
    return config


with page("Train"):
    show()
