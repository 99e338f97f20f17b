"""On which device a job runs, and what of it is free."""

import streamlit as st

from itda_core.devices import Device, best_device, devices
from itda_core.jobs.job import ANY
from itda_core.jobs.places import places_here
from itda_core.memory import memory_setting
from itda_core.settings import MEMORY
from pages.components.text import bytes_text, literal

_HELP = (
    "Each device runs one job at a time; others wait. What is trained does not depend on the "
    "device, but for rounding."
)


def ask_for_device(key: str) -> str:
    """What a job is to name: a device, or "any" of several GPUs. Nothing is drawn where there is
    but one. Raises InputError where ITDA_DEVICE names one that is not there."""
    best_device()
    places = places_here()
    if len(places.names) == 1:
        return ANY
    titles = {device.name: f"{device.name}: {_title(device)}" for device in devices()}
    several = len(places.usual) > 1
    options = [ANY, *places.names] if several else [*places.usual, *places.names]
    return st.selectbox(
        "Device",
        list(dict.fromkeys(options)),
        format_func=lambda name: titles.get(name, "the GPU that is free"),
        key=key,
        help=_HELP,
    )


def ask_for_memory(key: str, chosen: str) -> int | None:
    """Bytes that the model of a job may use; None where nothing stands in the field. chosen: a
    device, or "any". Raises InputError where what stands there, or in ITDA_MEMORY, is no size."""
    setting = memory_setting()
    free = likely_device(chosen).free if setting is None else setting
    whose = "what is free" if setting is None else "as ITDA_MEMORY says"
    text = st.text_input(
        MEMORY.label,
        key=key,
        placeholder=f"{bytes_text(free)}, {whose}",
        help=MEMORY.advice,
    )
    return MEMORY.read(text) if text.strip() else None


def show_only_device() -> None:
    """A line on the device, where there is no choice."""
    device, *others = devices()
    if not others:
        free, total = bytes_text(device.free), bytes_text(device.total)
        st.caption(f"Device: {literal(device.title)}, {free} of {total} of memory free.")


def likely_device(chosen: str) -> Device:
    """The device that was chosen; of any, the one with most free memory."""
    allowed = places_here().usual if chosen == ANY else (chosen,)
    there = [device for device in devices() if device.name in allowed]
    return max(there, key=lambda device: device.free)


def _title(device: Device) -> str:
    return "can't be opened" if device.trouble else f"{device.title}, {bytes_text(device.total)}"
