"""The layout of the published ITDA code: atoms.pt, atom_indices.pt, metadata.yaml.

atoms.pt          [n_atoms, d_model], unit rows
atom_indices.pt   [n_atoms, 2] int64: which text of the data set, counted from 0 in the order in
                  which they were read, and which token of it; (-1, -1) where that was lost
metadata.yaml     lm_name, layer, k (our L0), loss_threshold (a mean over the d_model components,
                  where ours is their sum), dataset, seq_len, steps × batch_size = texts read, …

Texts are cut to seq_len tokens and shorter ones padded, and the padding is read too. What goes out
from here has, in addition, prompts.jsonl (the texts in that order), offset.pt where there is an
offset, and a section itda_explorer in metadata.yaml; the published code looks at neither.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ExchangeError
from itda_core.files.foreign import check_foreign, read_foreign
from itda_core.pursuit.orthogonal import PURSUITS
from itda_core.runs.run import Run
from itda_core.settings import RESID_POST
from itda_core.tables import read_frame

ATOMS_FILE = "atoms.pt"
INDICES_FILE = "atom_indices.pt"
METADATA_FILE = "metadata.yaml"
OFFSET_FILE = "offset.pt"
PROMPTS_FILE = "prompts.jsonl"
OUR_SECTION = "itda_explorer"
_MOST_PROMPTS = 2**31
_MAX_METADATA = 1 << 20


@dataclass(frozen=True)
class PublishedFolder:
    """A dictionary as the published code keeps it."""

    atoms: torch.Tensor
    """[n_atoms, d_model] float32, unit rows"""
    indices: np.ndarray
    """[n_atoms, 2] int64: number of the text, position of the token"""
    offset: torch.Tensor
    """[d_model] float32; zero where the folder has none"""
    model: str | None
    layer: int | None
    l0: int
    dataset: str | None
    context_length: int
    threshold: float
    """Of a sum over components, as here"""
    texts_read: int
    """How many texts were read; those after them are unseen"""
    pursuit: str
    min_projection: float
    median_norm: float | None
    skip_first: bool
    prompts: list[str] | None
    """The texts in the order that `indices` counts in, where the folder holds them"""
    n_seed_atoms: int
    """So many atoms, the first ones, were taken before any was chosen"""


def published_files(run: Run) -> dict[str, bytes]:
    """The content of a folder in the published layout by file name. Raises ExchangeError for an
    autoencoder, whose atoms are no tokens, and for another place than a block's output."""
    dictionary, config = run.dictionary(), run.config
    if dictionary.kind == "sae":
        raise ExchangeError(
            f"{run.run_id} is an autoencoder, and the published layout holds activations of "
            "tokens. Export it as saelens."
        )
    if run.site != RESID_POST:
        raise ExchangeError(
            f"{run.run_id} is of {run.site}, and the published layout has no name for another "
            "place than a block's output. Export it as saelens."
        )
    prompts = read_frame(run.directory / "prompts.parquet", columns=["prompt_id", "text"])
    numbers = pd.Index(prompts["prompt_id"]).get_indexer(dictionary.sources["prompt_id"])
    indices = np.stack([numbers, dictionary.sources["position"].to_numpy(np.int64)], axis=1)
    lines = [json.dumps(text, ensure_ascii=False) + "\n" for text in prompts["text"]]
    metadata = {
        "wandb_name": run.run_id,
        "lm_name": config.model.name,
        "layer": run.layer,
        "submodule_name": None,
        "device": "cpu",
        "activation_dim": dictionary.d_model,
        "k": dictionary.l0,
        "loss_threshold": config.threshold / dictionary.d_model,
        "dataset": config.corpus.name,
        "seq_len": config.context_length,
        "batch_size": 1,
        "steps": len(prompts),
        "seed": config.seed,
        "max_dict_size": config.max_atoms,
        OUR_SECTION: {
            "pursuit": dictionary.pursuit,
            "least": dictionary.min_projection,
            "median_norm": dictionary.median_norm,
            "selection": config.selection,
            "seeds": dictionary.n_seed_atoms,
            "skip_first": config.skip_first,
            "note": published_note(dictionary),
        },
    }
    files = {
        ATOMS_FILE: _saved(dictionary.atoms),
        INDICES_FILE: _saved(torch.from_numpy(indices)),
        METADATA_FILE: yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).encode(),
        PROMPTS_FILE: "".join(lines).encode(),
    }
    return {**files, OFFSET_FILE: _saved(dictionary.offset)} if dictionary.offset.any() else files


def published_note(dictionary: Dictionary) -> str:
    """What the published code makes of the folder, beside the dictionary itself."""
    notes = []
    if dictionary.offset.any():
        notes.append(
            f"The published code knows no offset: subtract {OFFSET_FILE} from activations before "
            "it encodes, and add it to what it decodes."
        )
    if dictionary.pursuit != "matching":
        notes.append(
            "It encodes by plain matching pursuit, where the dictionary uses the pursuit "
            f"{dictionary.pursuit!r} and reconstructs better."
        )
    return " ".join(notes) or "The published code encodes and decodes as the dictionary does."


def read_published(folder: Path) -> PublishedFolder:
    """A folder of the published code, or one that went out from here. Tensors are read without
    unpickling anything else. Raises ExchangeError with the reason."""
    metadata = _read_metadata(folder)
    atoms, indices = _read_tensor(folder / ATOMS_FILE), _read_tensor(folder / INDICES_FILE)
    if atoms.ndim != 2 or not len(atoms) or not atoms.is_floating_point():
        raise ExchangeError(f"{folder / ATOMS_FILE} holds no atoms: its shape is {[*atoms.shape]}.")
    if indices.shape != (len(atoms), 2) or indices.is_floating_point():
        raise ExchangeError(
            f"{folder / INDICES_FILE} has to name a text and a token for each of the {len(atoms)} "
            f"atoms, shape [{len(atoms)}, 2], and has the shape {[*indices.shape]}."
        )
    norms = atoms.float().norm(dim=1)
    if not (torch.isfinite(norms) & (norms > 0)).all():
        raise ExchangeError(f"{folder / ATOMS_FILE} has atoms that are zero or not finite.")
    offset = torch.zeros(atoms.shape[1], dtype=torch.float32)
    if (folder / OFFSET_FILE).exists():
        offset = _read_tensor(folder / OFFSET_FILE).float()
        if offset.shape != (atoms.shape[1],) or not torch.isfinite(offset).all():
            raise ExchangeError(f"{folder / OFFSET_FILE} does not fit the atoms.")
    ours = metadata.get(OUR_SECTION)
    ours = ours if isinstance(ours, dict) else {}
    unchosen = 0 if ours.get("selection", "threshold") != "threshold" else atoms.shape[1]
    threshold = _number(metadata, "loss_threshold", 0.0) * atoms.shape[1]
    layer = int(_number(metadata, "layer", -1))
    return PublishedFolder(
        atoms=torch.nn.functional.normalize(atoms.float(), dim=1),
        indices=indices.long().numpy(),
        offset=offset,
        model=_name(metadata, "lm_name", "model"),
        layer=None if layer < 0 else layer,
        l0=max(1, int(_number(metadata, "k", _number(metadata, "l0", 40)))),
        dataset=_name(metadata, "dataset"),
        context_length=max(2, int(_number(metadata, "seq_len", 128))),
        threshold=min(4.0, max(0.0, threshold)),
        texts_read=max(
            int(_number(metadata, "steps", 0) * _number(metadata, "batch_size", 0)),
            int(indices[:, 0].max()) + 1,
        ),
        pursuit=_pursuit(ours),
        min_projection=max(0.0, _number(ours, "least", 0.0)),
        median_norm=_number(ours, "median_norm", 0.0) or None,
        skip_first=ours.get("skip_first") is True,
        prompts=_read_prompts(folder / PROMPTS_FILE),
        n_seed_atoms=max(0, int(_number(ours, "seeds", unchosen))),
    )


def _pursuit(ours: dict) -> str:
    name = ours.get("pursuit", "matching")
    if name not in PURSUITS:
        raise ExchangeError(
            f"{METADATA_FILE} names the pursuit {name!r}, which is not known here: update the "
            "explorer, or take the line out for the published one."
        )
    return name


def _saved(tensor: torch.Tensor) -> bytes:
    content = io.BytesIO()
    torch.save(tensor.contiguous().clone(), content)
    return content.getvalue()


def _read_tensor(path: Path) -> torch.Tensor:
    try:
        check_foreign(path)
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ExchangeError(
            f"{path.parent} is no folder of the published code: it has no {path.name}."
        ) from None
    except Exception as error:  # torch raises many kinds, for pickles one that is best not imported
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExchangeError(
            f"{path} is damaged, or holds more than a tensor, and is not read ({reason[:200]})."
        ) from error
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise ExchangeError(f"{path} holds {type(tensor).__name__}, and a tensor is needed.")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise ExchangeError(
            f"{path} holds a tensor of {tensor.numel():,} numbers that the file does not have: it "
            "repeats some of them. Save its .contiguous() instead."
        )
    return tensor.detach()


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA_FILE
    try:
        metadata = yaml.safe_load(read_foreign(path, _MAX_METADATA).decode("utf-8"))
    except FileNotFoundError:
        raise ExchangeError(
            f"{folder} is no folder of the published code: it has no {METADATA_FILE}."
        ) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExchangeError(f"{path} can't be read: {reason}.") from error
    if not isinstance(metadata, dict):
        raise ExchangeError(f"{path} holds no settings.")
    return metadata


def _decoded(path: Path) -> str:
    return read_foreign(path, _MOST_PROMPTS).decode("utf-8")


def _read_prompts(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    try:
        texts = [json.loads(line) for line in _decoded(path).split("\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        raise ExchangeError(f"{path} can't be read: {error}.") from error
    if not all(isinstance(text, str) for text in texts):
        raise ExchangeError(f"{path} holds something else than one text a line.")
    return texts


def _name(metadata: dict[str, Any], *keys: str) -> str | None:
    name = next((metadata[key] for key in keys if metadata.get(key)), None)
    return name if isinstance(name, str) else None


def _number(metadata: dict[str, Any], key: str, default: float) -> float:
    number = metadata.get(key)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return number if is_number and abs(number) < 2**53 else default
