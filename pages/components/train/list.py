"""Several trainings from one file, as one job."""

from dataclasses import replace
from pathlib import Path

import streamlit as st

from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.jobs.estimate import Estimate, estimate
from itda_core.training.training_list import ListedTraining, listed_trainings
from pages.components.device_choice import likely_device
from pages.components.exposure import check_no_path_in
from pages.components.text import bytes_text, literal, seconds_text

_EXAMPLE = """[defaults]
max-tokens = 16384

[[training]]
model = ["tiny-6x128-0", "tiny-6x128-1"]
layers = [2, 4]"""
_SHOWN = 20
"""Trainings that are named"""
_ESTIMATED = 300
"""Trainings, apart from seeds, whose need is looked up at a click"""


def ask_for_list() -> tuple[str, list[ListedTraining]] | None:
    """The text of a list that can be trained, and its trainings; None while there is none. Raises
    InputError where one of its trainings is wrong."""
    text = st.text_area(
        "Trainings, as TOML or JSON",
        key="list_text",
        height=220,
        placeholder=_EXAMPLE,
        help="A table [[training]] for each, with the names of the command line's options, and "
        "[defaults] for what they share. Several values in brackets stand for a training of each.",
    )
    file = st.file_uploader("or a file", type=["toml", "json"], key="list_file")
    if file is not None:
        text = _content(file)
    if not text.strip():
        return None
    listed = listed_trainings(text, "The list")
    for one in listed:
        check_no_path_in(one.config)
    _show(listed)
    return text, listed


def show_needs_of_list(
    listed: list[ListedTraining], chosen: str, memory: int | None = None, ray: str = ""
) -> None:
    """The time of all trainings on this machine, one after another, and the most disk that one
    takes; as far as the models are known. chosen, memory, ray: as `show_needs` takes them."""
    device = likely_device(chosen)
    guesses = None if device.trouble else _estimates(listed, device.name, memory)
    if not guesses:
        st.caption("The time can be estimated once the models have been loaded for the first time.")
        return
    unknown = len(listed) - len(guesses)
    of_which = (
        f", for {len(guesses):,} of them: the other models are not known yet" if unknown else ""
    )
    seconds = sum(guess.seconds for guess in guesses)
    alone = " alone, one after another" if ray else ", one after another"
    st.caption(
        f"About {seconds_text(seconds)} on this machine{alone}, and up to "
        f"{bytes_text(max(guess.disk for guess in guesses))} of disk while one runs{of_which}."
    )


def _estimates(listed: list[ListedTraining], device: str, memory: int | None) -> list[Estimate]:
    """Of the trainings whose models are known; the seed changes none."""
    found: dict[TrainConfig, Estimate | None] = {}
    for one in listed:
        config = replace(one.config, seed=0)
        if config not in found and len(found) < _ESTIMATED:
            found[config] = estimate(config, device, memory)
    each = [found.get(replace(one.config, seed=0)) for one in listed]
    return [guess for guess in each if guess is not None]


def _content(file) -> str:
    try:
        return file.getvalue().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file.name} is no text in UTF-8. Choose another file.") from None


def _show(listed: list[ListedTraining]) -> None:
    """What the list stands for."""
    titles = [f"{one.number}. {one.title}: {_about(one.config)}" for one in listed[:_SHOWN]]
    if len(listed) > _SHOWN:
        titles.append(f"… and {len(listed) - _SHOWN:,} more")
    count = "1 training" if len(listed) == 1 else f"{len(listed):,} trainings"
    st.caption(f"{count}. One that fails costs no other; what is finished is not made again.")
    st.caption("  \n".join(map(literal, titles)))


def _about(config: TrainConfig) -> str:
    """What is trained, but for what the title says."""
    read = Path(config.activations or config.corpus.name).name
    return (
        f"up to {config.max_tokens:,} tokens of {read}, {config.max_atoms:,} atoms, "
        f"L0 {config.l0}, {config.selection}"
    )
