"""A model with what it was proved to do right, remembered between loads."""

import dataclasses
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torch import nn

from itda_core.config import data_directory
from itda_core.digests import digest
from itda_core.files import write_json
from itda_core.model.abilities import Abilities
from itda_core.model.blocks import block_lists
from itda_core.model.model import Model
from itda_core.model.proof import prove

_VERSION = 1
"""Of the proof: what an earlier one found is not believed"""


@dataclass(frozen=True)
class Identity:
    """All that what is proved of a model may depend on, beside the versions of its libraries."""

    name: str
    digest: str
    """of its files' content; where empty, nothing is remembered"""
    dtype: str
    device: str


def remembered(identity: Identity) -> Abilities | None:
    """What was proved of the model when it was loaded before; None where it never was."""
    found = _read(_file(identity))
    return found and Abilities(**found["abilities"])


def proved(identity: Identity, module: nn.Module, tokenizer) -> Model:
    """The model, its blocks chosen and its abilities proved: by what was remembered of the same
    model, else by trying."""
    name, digest, lists, file = identity.name, identity.digest, block_lists(module), _file(identity)
    if (remembered := _read(file)) and remembered["blocks"] in lists:
        model = Model(name, module, tokenizer, digest, remembered["blocks"])
        model.abilities = Abilities(**remembered["abilities"])
        return model
    for blocks in lists:
        model = Model(name, module, tokenizer, digest, blocks)
        model.abilities = prove(model)
        if not model.abilities.capture:
            break
    _remember(file, blocks, model.abilities)
    return model


def _file(identity: Identity) -> Path | None:
    if not identity.digest:
        return None
    versions = [f"{package} {metadata.version(package)}" for package in ("torch", "transformers")]
    parts = [_VERSION, *dataclasses.astuple(identity), *versions]
    return data_directory() / "cache" / "proofs" / f"{digest(json.dumps(parts))}.json"


def _read(file: Path | None) -> dict | None:
    """What was remembered; None where nothing was, or nothing that can be understood."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["abilities"]["begins_after"] = tuple(found["abilities"]["begins_after"])
        Abilities(**found["abilities"])
        return found
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return None


def _remember(file: Path | None, blocks: str, abilities: Abilities) -> None:
    """Written for the next load; a folder that can't be written to only costs the time."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"blocks": blocks, "abilities": dataclasses.asdict(abilities)})
    except OSError:
        return
