"""What a training will need: time, memory and disk, and whether it fits."""

from collections.abc import Callable
from functools import partial

import streamlit as st

from itda_core.config import TrainConfig
from itda_core.devices import Device
from itda_core.errors import InputError
from itda_core.jobs.estimate import Estimate
from itda_core.jobs.likely import likely_estimate
from itda_core.jobs.sweep_cost import SweepCost
from itda_core.memory import usable_memory
from itda_core.model.data_types import resolved_dtype
from pages.components.device_choice import likely_device
from pages.components.explorer import explorer
from pages.components.text import bytes_text, literal, seconds_text


def show_needs(
    config: TrainConfig,
    chosen: str,
    memory: int | None = None,
    ray: str = "",
    estimated: Callable[..., Estimate | None] | None = None,
) -> bool:
    """The estimate, and a warning where the memory of the device will not do; False where it would
    be refused. chosen: a device, or "any"; memory: bytes that the model may use; ray: the cluster
    that trains instead, of which nothing is known here; estimated: called as `estimate` is, by
    default by what this machine took for such trainings. Raises InputError where the device is
    full or can't be opened."""
    if ray:
        _show_needs_here(config, chosen, memory)
        return True
    device = likely_device(chosen)
    if device.trouble:
        raise InputError(f"The device {device.name} can't be opened: {device.trouble}")
    estimated = estimated or partial(likely_estimate, explorer().queue)
    guess = estimated(config, device.name, memory)
    if guess is None:
        st.caption("The time can be estimated once the model has been loaded for the first time.")
        return True
    lacking = too_little(guess, usable_memory(device.name, memory))
    where = (
        "this machine" if guess.on_device is None else literal(f"{device.name} ({device.title})")
    )
    st.caption(
        f"About {seconds_text(guess.seconds)} on {where}, {bytes_text(guess.memory)} of "
        f"memory and {bytes_text(guess.disk)} of disk while it runs. "
        f"{'' if lacking else fit(guess, device)}",
        help=_MADE_OF,
    )
    if guess.sweep:
        st.caption(how_it_is_read(guess.model_bytes, guess.sweep))
    for problem in [*lacking, *problems(guess, device, config)]:
        st.warning(literal(problem))
    return not lacking


def _show_needs_here(config: TrainConfig, chosen: str, memory: int | None) -> None:
    """The time on this machine, as a measure of the work that a cluster shares."""
    device = likely_device(chosen)
    guess = (
        None if device.trouble else likely_estimate(explorer().queue, config, device.name, memory)
    )
    if guess:
        st.caption(
            f"About {seconds_text(guess.seconds)} on this machine alone, and "
            f"{bytes_text(guess.disk)} of disk while it runs. What the cluster takes is not known "
            "here."
        )


def too_little(guess: Estimate, usable: int) -> list[str]:
    """A sentence where not even two blocks have room in the memory that may be used, bytes."""
    if guess.sweep is None or guess.sweep.held <= usable:
        return []
    return [
        f"Even block by block the model takes {bytes_text(guess.sweep.held)} of memory, and "
        f"{bytes_text(usable)} may be used. Allow more, or choose a smaller model."
    ]


def how_it_is_read(model_bytes: int, sweep: SweepCost) -> str:
    """A sentence on a model that is read block by block."""
    rate = bytes_text(sweep.read / sweep.reading)
    how = "measured" if sweep.is_measured else "assumed"
    return (
        f"The model, {bytes_text(model_bytes)}, is larger than the memory that may be used, and is "
        f"read block by block: {bytes_text(sweep.read)} once, in {seconds_text(sweep.reading)} at "
        f"{rate} a second ({how}), while its blocks compute for {seconds_text(sweep.computing)}. "
        f"Hidden states take up to {bytes_text(sweep.hidden_on_disk)} of the disk."
    )


_MADE_OF = (
    "The time is what the last trainings took here, where there were any, scaled to these "
    "settings; else what the operations take at the speed at which this machine multiplies "
    "matrices now. Whatever else computes here makes both longer."
)
_SHARE = 0.9
"""Of what is free: what needs more is not said to fit, since the estimate is rough."""


def fit(guess: Estimate, device: Device) -> str:
    """A sentence on a device that has room; empty where it has none."""
    needed = _needed(guess, device)
    if needed > _SHARE * device.free:
        return ""
    where = "" if guess.on_device is None else f" on {literal(device.name)}"
    return f"It fits: {bytes_text(needed)} of {bytes_text(device.free)} free{where}."


def problems(guess: Estimate, device: Device, config: TrainConfig) -> list[str]:
    """Sentences on what does not fit, with the remedy."""
    needed, free = bytes_text(_needed(guess, device)), bytes_text(device.free)
    does_not_fit = _needed(guess, device) > _SHARE * device.free
    if guess.on_device is None:
        remedy = "Choose fewer atoms or tokens or a smaller model, or end other programs."
        told = f"This may not fit: it needs about {needed} of memory, and {free} are free. {remedy}"
        return [told] if does_not_fit else []
    parts = guess.on_device
    if does_not_fit:
        is_small = resolved_dtype(config.model.dtype, device.name).itemsize == 2
        smaller = "fewer layers or atoms" if is_small else "bfloat16"
        return [
            f"This may not fit into {device.name}: it needs about {needed}, the weights "
            f"{bytes_text(parts.weights)} of it, and {free} are free. Choose {smaller}, a smaller "
            "model or another device, or end what else uses this one."
        ]
    if not parts.has_gram(device.free):
        gram = bytes_text(parts.gram)
        return [
            f"The Gram matrix of so many atoms, {gram}, takes more than a quarter of what the "
            f"weights leave free on {device.name}: the pursuit does without it, and takes longer. "
            "Fewer atoms make it faster."
        ]
    return []


def _needed(guess: Estimate, device: Device) -> int:
    return guess.memory if guess.on_device is None else guess.on_device.least(device.free)
