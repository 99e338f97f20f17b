"""Models read block by block: how little memory makes them so, and both kinds of one model."""

import json
from pathlib import Path
from unittest import mock

from safetensors import safe_open

from itda_core.model import loading
from itda_core.model.loading import load_model
from itda_core.model.swept import SweptModel


def too_little(folder):
    """Bytes that are less than the weights of a model take, and enough for two blocks of some."""
    return sum(bytes_on_disk(folder).values()) * 3 // 4


def both_kinds(folder, part="", dtype=None):
    """A model of a folder in memory, and read block by block, whatever it takes."""
    name = f"{folder}{part}"
    resident = load_model(name, dtype, "cpu")
    with mock.patch.object(loading, "_fits", lambda *_: False):
        swept = load_model(name, dtype, "cpu")
    assert isinstance(swept, SweptModel)
    return resident, swept


def values_of(steps):
    """(number, value) of each step that has one, in their order; fractions must rise to one."""
    steps = list(steps)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert abs(fractions[-1] - 1) < 1e-9
    assert all(step.value is None for step in steps if step.number is None)
    return [(step.number, step.value) for step in steps if step.number is not None]


def bytes_on_disk(folder):
    """Bytes of every tensor by name, as the safetensors library reads the files."""
    found = {}
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                found[name] = tensor.numel() * tensor.itemsize
    return found


def rewrite_config(folder, **changes):
    """With other entries in config.json."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
