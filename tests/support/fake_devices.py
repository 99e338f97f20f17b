"""Devices that a machine is said to have."""

from itda_core import devices
from itda_core.devices import Device

GIB = 2**30


def pretend_gpus(monkeypatch, free=(20, 22), total=24):
    """The machine has so many GPUs of 24 GiB, with these GiB free, and its CPU."""
    gpus = {
        f"cuda:{number}": Device(f"cuda:{number}", "Fake GPU", total * GIB, gib * GIB)
        for number, gib in enumerate(free)
    }
    here = devices.described
    monkeypatch.delenv("ITDA_DEVICE", raising=False)
    monkeypatch.setattr(devices, "device_names", lambda: [*gpus, "cpu"])
    monkeypatch.setattr(devices, "described", lambda name: gpus.get(name) or here(name))
    return gpus
