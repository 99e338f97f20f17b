"""Trainings that were stopped half-way, to go on with or to discard."""

import streamlit as st

from itda_core.config import layers_in_words
from itda_core.runs.interrupted import interrupted_trainings, lost_trainings
from itda_core.training.trainer import came_to
from pages.components.explorer import explorer
from pages.components.frame import errors_as_sentences
from pages.components.job_offer import answer
from pages.components.text import literal
from pages.components.train.fields import Place


def show_stopped(place: Place | None) -> None:
    """Trainings with a checkpoint that no job of the list leads to, from the command line say.
    place: where they go on, which no checkpoint keeps; None where the form's is wrong. Of a folder
    that can only be read none is listed: nobody can tell whether its owner trains there."""
    here = explorer()
    if here.closed:
        return
    active = bool(here.queue.active())
    waiting = {} if active else interrupted_trainings(here.runs_folder)
    left = [job for job in here.queue.jobs() if job.state != "done"]
    listed = [config for job in left for config in here.queue.configs(job)]
    waiting = {
        name: config
        for name, config in waiting.items()
        # What a job leaves open, the training that it started has written down.
        if not any(came_to(one, config) for one in listed)
    }
    lost = {} if active else lost_trainings(here.runs_folder)
    if not waiting and not lost:
        return
    st.subheader("Stopped half-way")
    for training_id, why in lost.items():
        with st.container(border=True):
            st.markdown(f"**{literal(training_id)}** can't be resumed. {literal(why)}")
            if st.button("Discard", key=f"discard_{training_id}", width="stretch"):
                _discard(training_id)
    for training_id, config in waiting.items():
        with st.container(border=True):
            layers = layers_in_words(config.layers, config.site)
            st.markdown(f"**{literal(config.model.name)}**, {literal(layers)}")
            go_on, discard = st.columns(2)
            if go_on.button(
                "Resume",
                key=f"go_on_{training_id}",
                width="stretch",
                disabled=place is None,
                help="With the device, the memory and the cluster that stand in the form.",
            ):
                answer(here.queue.submit(config, *place))
            if discard.button("Discard", key=f"discard_{training_id}", width="stretch"):
                _discard(training_id)


def _discard(training_id: str) -> None:
    with errors_as_sentences():
        explorer().discard(training_id)
        st.rerun()
