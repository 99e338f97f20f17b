"""Where the files of a model are, and what names their content."""

import os
from pathlib import Path

import torch

from itda_core.config import ModelSpec
from itda_core.devices import kind_of
from itda_core.digests import digest, sample_of
from itda_core.errors import ModelError
from itda_core.model.built_in import BUILT_IN, DIGEST_PREFIX, built_in_folder
from itda_core.model.data_types import resolved_dtype
from itda_core.model.plausible import check_folder
from itda_core.model.pretrained import without_part
from itda_core.model.proved import Identity


def resolve(spec: ModelSpec, unpack: bool = True) -> str:
    """A folder with config.json and safetensors, or a hub id. unpack: make the folder of a built-in
    model where it is not there yet."""
    name = without_part(spec.name)
    if name in BUILT_IN:
        return str(built_in_folder(name)) if unpack else name
    # pathlib's own tests raise for names that no folder can have, such as very long ones.
    path = Path(os.path.expanduser(name))  # noqa: PTH111
    if os.path.isdir(path):  # noqa: PTH112
        if not (path / "config.json").exists():
            raise ModelError(f"The folder {path} holds no model: it has no config.json.")
        check_folder(path)
        if not any(path.glob("*.safetensors")):
            raise ModelError(
                f"The folder {path} has no safetensors weights. Other formats can run code when "
                "they are read; convert it with save_pretrained first."
            )
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or os.path.exists(path):  # noqa: PTH110
        raise ModelError(f"There is no model folder {path}. Check the path.")
    return name


def identity_of(spec: ModelSpec, source: str, config, dtype: torch.dtype, device: str) -> Identity:
    return Identity(spec.name, _digest(spec, source, config), str(dtype), kind_of(device))


def model_digest(spec: ModelSpec, config) -> str:
    """The digest of a model that another program has loaded. config: transformers' own."""
    return _digest(spec, resolve(spec, unpack=False), config)


def local_identity(spec: ModelSpec, config, device: str) -> Identity:
    """Of a model here, as it would be loaded. Raises ModelError where it is not here."""
    source = resolve(spec, unpack=False)
    return identity_of(spec, source, config, resolved_dtype(spec.dtype, device), device)


def _digest(spec: ModelSpec, source: str, config) -> str:
    """Names a model's content: package version, hub commit, or a sample of the local files."""
    if without_part(spec.name) in BUILT_IN:
        return f"{DIGEST_PREFIX}{BUILT_IN[without_part(spec.name)].version}"
    if not Path(source).is_dir():
        return getattr(config, "_commit_hash", None) or (spec.revision or "")
    files = [*Path(source).glob("*.json"), *Path(source).glob("*.safetensors")]
    return digest(sample_of(sorted(files)))
