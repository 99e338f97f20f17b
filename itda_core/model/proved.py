"""A model with what it was proved to do right, remembered between loads."""

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from itda_core.data_folder import data_directory
from itda_core.digests import digest
from itda_core.errors import ModelError
from itda_core.files.json_files import read_json, write_json
from itda_core.model.abilities import Abilities
from itda_core.model.blocks import block_lists
from itda_core.model.model import Model
from itda_core.model.pretrained import text_parts, type_names
from itda_core.model.proof import prove
from itda_core.model.site_proof import prove_sites
from itda_core.model.sites import Sites
from itda_core.model.swept import SweptModel
from itda_core.model.swept_proof import prove_swept
from itda_core.model.swept_sites import prove_swept_sites
from itda_core.model.weights import Weights

_VERSION = 1
"""Of the proof: what an earlier one found is not believed"""
_SITES_VERSION = 2
"""The same of the proof of the sites, which is made when one is first asked for"""


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
    found = _read(_file(identity)) or _read(_file(_swept(identity)))
    return found and Abilities(**found["abilities"])


def _swept(identity: Identity) -> Identity:
    """The same model read block by block, which proves itself in another way."""
    return dataclasses.replace(identity, device=f"{identity.device}, block by block")


def proved(identity: Identity, module: nn.Module, tokenizer) -> Model:
    """The model, its blocks chosen and its abilities proved: by what was remembered of the same
    model, else by trying."""
    file = _file(identity)

    def make(part: str, blocks: str) -> Model:
        text_model = module.get_submodule(part)
        model = Model(identity.name, text_model, tokenizer, identity.digest, blocks)
        model.find_sites = functools.partial(_proved_sites, file, prove_sites)
        return model

    if found := _read(file):
        model = make(found["part"], found["blocks"])
        model.abilities, model.d_model = Abilities(**found["abilities"]), found["d_model"]
        return model
    tried = []
    for part, blocks in candidates(module):
        model = make(part, blocks)
        model.abilities = prove(model)
        tried.append((part, blocks, model))
        if not model.abilities.capture:
            break
    # Where none will do, what is wrong with the likeliest is what is told.
    part, blocks, model = tried[0 if model.abilities.capture else -1]
    _remember(file, part, blocks, model)
    return model


def remembered_sites(identity: Identity, is_swept: bool = False) -> Sites | None:
    """What was proved of the model's sites before; None where it never was. is_swept: as it is read
    block by block."""
    return _read_sites(_read(_file(_swept(identity) if is_swept else identity)))


def _proved_sites(file: Path | None, prove: Callable[[Model], Sites], model: Model) -> Sites:
    """By what was remembered of the same model, else by trying."""
    found = _read(file)
    if sites := _read_sites(found):
        return sites
    sites = prove(model)
    if found:  # there is what was proved when it was loaded, beside which it is kept
        about = {"version": _SITES_VERSION, **sites.to_dict()}
        _write(file, found | {"sites": about})
    return sites


def _read_sites(found: dict | None) -> Sites | None:
    """Those of a remembered proof; None where it has none that can be understood."""
    try:
        about = found["sites"]
        return Sites.from_dict(about) if about["version"] == _SITES_VERSION else None
    except (KeyError, TypeError, AttributeError):
        return None


def proved_swept(
    identity: Identity,
    module: nn.Module,
    weights: Weights,
    tokenizer,
    device: torch.device,
    memory: int,
) -> SweptModel:
    """The same of a model that is read block by block. module: what is used of that of `weights`;
    memory: bytes that may be used on `device`."""
    file = _file(_swept(identity))
    inside = next(path for path, one in weights.module.named_modules() if one is module)

    def make(part: str, blocks: str) -> SweptModel:
        path = ".".join(filter(None, (inside, part)))
        place = (weights, path, blocks)
        model = SweptModel(identity.name, *place, tokenizer, identity.digest, device, memory)
        model.find_sites = functools.partial(_proved_sites, file, prove_swept_sites)
        return model

    if found := _read(file):
        model = make(found["part"], found["blocks"])
        model.abilities, model.d_model = Abilities(**found["abilities"]), found["d_model"]
        model.n_values = found.get("n_values")
        return model
    part, blocks = candidates(module)[0]
    model = make(part, blocks)
    model.abilities = prove_swept(model, type_names(weights.module, is_encoder=bool(inside)))
    _remember(file, part, blocks, model)
    return model


def candidates(module: nn.Module) -> list[tuple[str, str]]:
    """Text models within `module` and lists of blocks in them, the likeliest first."""
    parts = text_parts(module)
    found = [(part, path) for part in parts for path in block_lists(module.get_submodule(part))]
    if not found:
        raise ModelError(
            f"No list of blocks was found in this {type(module).__name__}: its activations can't "
            "be read. docs/models.md lists the types of model that work."
        )
    return found


def _file(identity: Identity) -> Path | None:
    if not identity.digest:
        return None
    versions = [f"{package} {metadata.version(package)}" for package in ("torch", "transformers")]
    parts = [_VERSION, *dataclasses.astuple(identity), *versions]
    return data_directory() / "cache" / "proofs" / f"{digest(json.dumps(parts))}.json"


def _read(file: Path | None) -> dict | None:
    """What was remembered; None where nothing was, or nothing that can be understood."""
    try:
        found = read_json(file)
        if found.pop("digest") != _own_digest(found):
            return None
        for name in ("begins_after", "step_inputs"):
            found["abilities"][name] = tuple(found["abilities"][name])
        Abilities(**found["abilities"])
        return found if {"part", "blocks", "d_model"} <= found.keys() else None
    except Exception:  # whatever the file holds, it is proved anew
        return None


def _remember(file: Path | None, part: str, blocks: str, model: Model) -> None:
    """Written for the next load; a folder that can't be written to only costs the time."""
    about = {"part": part, "blocks": blocks, "d_model": model.d_model}
    if isinstance(model, SweptModel):
        about["n_values"] = model.n_values
    _write(file, about | {"abilities": dataclasses.asdict(model.abilities)})


def _write(file: Path | None, found: dict) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**found, "digest": _own_digest(found)})
    except OSError:
        return


def _own_digest(found: dict) -> str:
    """By which a bit that has flipped is noticed: the model is then proved anew."""
    return digest(json.dumps(found, sort_keys=True))
