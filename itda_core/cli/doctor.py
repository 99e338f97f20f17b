"""itda doctor: whether this machine and what is stored are in order, and what to mend."""

import argparse
import dataclasses
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from itda_core.cli.console import refuse, show
from itda_core.data_folder import data_directory
from itda_core.errors import InputError, first_line
from itda_core.files.disk_errors import why_closed

_PACKAGES = ("torch", "transformers", "streamlit", "duckdb", "plotly", "pandas", "pyarrow", "numba")
_LEAST_FREE = 2.0
"""Gigabytes of free disk with which one can train"""


def doctor(options: argparse.Namespace) -> int:
    """Versions, device, disk, and all that is stored; exit 1 where something is to mend."""
    from itda_core.checkup import Finding, check_data, seal_all

    refuse(options, ["deep"] * options.seal, "--seal reads every file as it is: leave out")
    data = data_directory()
    devices = _devices()
    checks = [*_versions(), *_device_checks(devices), _memory_check(), *_disk(data)]
    findings = [*(seal_all(options.runs) if options.seal else [])]
    findings += check_data(data, options.runs, options.deep)
    findings = [Finding(*check) for check in checks] + findings
    rows = [dataclasses.asdict(finding) for finding in findings]
    to_mend = sum(not finding.ok for finding in findings)
    lines = [{"check": one.check, "ok": one.ok, "found": one.found} for one in findings]
    show(options, {"checks": rows, "devices": devices, "to_mend": to_mend}, lines)
    return 1 if to_mend else 0


def _versions() -> list[tuple[str, str, bool]]:
    """Python, packages and built-in models."""
    from itda_core.model.built_in import BUILT_IN, how_to_install, is_installed

    checks = [("Python", platform.python_version(), sys.version_info >= (3, 11))]
    for name in _PACKAGES:
        found = _with_version(name)
        checks.append((name, found.split()[1], True) if found else _missing(name))
    for name in BUILT_IN:
        there = is_installed(name)
        checks.append((f"model {name}", "installed" if there else how_to_install(name), there))
    return checks


def _missing(package: str) -> tuple[str, str, bool]:
    return package, f"not installed: pip install {package}", False


def _disk(data: Path) -> list[tuple[str, str, bool]]:
    nearest = next(path for path in [data, *data.parents] if path.exists())
    free = shutil.disk_usage(nearest).free / 1e9
    return [
        ("data folder", why_closed(data) or str(data), True),  # it may be meant so
        ("free disk", f"{free:.1f} GB", free > _LEAST_FREE),
    ]


def _devices() -> list[dict[str, Any]]:
    """Each device with its memory, the data type that is fastest there, and its fast pursuit."""
    from itda_core.devices import Device, devices
    from itda_core.model.data_types import resolved_dtype

    def dtype(device: Device) -> str | None:
        chosen = None if device.trouble else resolved_dtype("auto", device.name)
        return chosen and str(chosen).removeprefix("torch.")

    return [
        {
            **dataclasses.asdict(device),
            "dtype": dtype(device),
            "kernels": _with_version("numba") if device.kind == "cpu" else None,
        }
        for device in devices()
    ]


def _with_version(package: str) -> str | None:
    """An installed package, such as "numba 0.61"; None where it is not."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return None


def _device_checks(devices: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    """The device that computes where nothing is said, and a line on each."""
    from itda_core.devices import best_device

    try:
        checks = [("device", best_device(), True)]
    except InputError as error:  # ITDA_DEVICE names one that is not there
        checks = [("device", str(error), False)]
    for one in devices:
        if one["trouble"]:
            checks.append((f"device {one['name']}", f"can't be opened: {one['trouble']}", False))
            continue
        memory = f"{one['free'] / 1e9:.1f} of {one['total'] / 1e9:.1f} GB free"
        kernels = one["kernels"] or "no compiled kernels"
        about = ", ".join((one["title"], memory, one["dtype"], kernels))
        checks.append((f"device {one['name']}", about, True))
    return checks


def _memory_check() -> tuple[str, str, bool]:
    """How large a model is loaded as a whole."""
    import torch

    from itda_core.devices import best_device, numbered
    from itda_core.memory import memory_setting, usable_memory

    try:
        usable = usable_memory(torch.device(numbered(best_device())))
        whose = "what is free" if memory_setting() is None else "as ITDA_MEMORY says"
    except InputError as error:  # one of the two settings can't be followed
        return "memory", str(error), False
    except (RuntimeError, AssertionError) as error:  # the device can't be opened
        return "memory", f"not known: {first_line(error)}", False
    loaded = f"weights of up to {usable / 1e9:.1f} GB ({whose})"
    return "memory", f"{loaded}; larger models are read block by block", True
