"""Dictionaries as SAELens folders, and SAELens folders as dictionaries; sae-lens is not needed.

A folder is what `SAE.save_model` of sae-lens 6 writes and `SAE.load_from_disk` reads: cfg.json and
sae_weights.safetensors. A dictionary of ours goes out as a `matching_pursuit` SAE. That one takes
the atom with the largest correlation, ours with the largest |correlation|, so each atom goes out
twice, as d and as −d: with D the n atoms, W_dec = [D; −D], and our coefficients are
acts[:, :n] − acts[:, n:].
"""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.sae_encoder import ARCHITECTURES, SaeEncoder
from itda_core.errors import ExchangeError
from itda_core.files.foreign import check_foreign
from itda_core.files.json_files import read_json
from itda_core.settings import RESID_POST, SITES

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SCALER_FILE = "activation_scaler.json"
SOURCES_FILE = "sources.parquet"
_FORMAT = "6.0.0"
"""The version of sae-lens from which on cfg.json looks like this; older ones are converted."""


@dataclass(frozen=True)
class SaelensFolder:
    """A sparse autoencoder as a SAELens folder holds it, with unit atoms."""

    encoder: SaeEncoder
    atoms: torch.Tensor
    """[n_atoms, d_model] float32, the decoder's rows at unit length; a row of zeros stays one"""
    offset: torch.Tensor
    """[d_model] float32, the decoder's bias"""
    model: str | None
    """Whatever the folder calls its model"""
    hook_name: str | None
    context_length: int | None

    @property
    def layer(self) -> int | None:
        """The block that the autoencoder is for; None where the folder does not say."""
        return self._place[0]

    @property
    def site(self) -> str:
        """The place in the block; what it gives where the folder does not say."""
        return self._place[1]

    @property
    def _place(self) -> tuple[int | None, str]:
        """Layer and site. Raises ExchangeError for an autoencoder of other vectors."""
        if not self.hook_name:
            return None, RESID_POST
        match = re.fullmatch(rf"blocks\.(\d+)\.hook_({'|'.join(SITES)})", self.hook_name)
        if match is None:
            hooks = ", ".join(f"hook_{site}" for site in SITES)
            raise ExchangeError(
                f"This autoencoder is for {self.hook_name!r}, and what can be captured here is "
                f"blocks.N. with one of {hooks}. Choose another autoencoder."
            )
        layer, site = int(match[1]), match[2]
        if site == "resid_pre" and layer:  # what goes into a block came out of the one before
            return layer - 1, RESID_POST
        return layer, site


def saelens_files(
    dictionary: Dictionary, context_length: int | None = None, prepend_bos: bool = False
) -> dict[str, bytes]:
    """The content of a SAELens folder by file name, with the sources as a Parquet table beside.

    context_length: tokens of a prompt that were read; prepend_bos: whether the tokenizer puts a
    token of its own before each text.
    """
    table = io.BytesIO()
    dictionary.sources.assign(word=dictionary.word_starts()).to_parquet(table, index=False)
    dictionary = dictionary.to("cpu")
    exported, hook_point = _exported(dictionary), dictionary.hook_point
    weights = {name: weight.contiguous() for name, weight in exported.weights.items()}
    config = {
        **exported.architecture,
        "d_in": dictionary.d_model,
        "d_sae": len(weights["W_dec"]),
        "dtype": "float32",
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _FORMAT,
            "model_name": hook_point.model,
            "hook_name": f"blocks.{hook_point.layer}.hook_{hook_point.site}",
            "context_size": context_length,
            "prepend_bos": prepend_bos,
            "itda_pursuit": exported.pursuit,
            "itda_note": exported.note,
        },
    }
    return {
        CONFIG_FILE: (json.dumps(config, indent=1) + "\n").encode(),
        WEIGHTS_FILE: safetensors.torch.save(weights),
        SOURCES_FILE: table.getvalue(),
    }


def saelens_note(dictionary: Dictionary) -> str:
    """What the folder's codes are beside those of the dictionary, as a sentence or two."""
    return _exported(dictionary).note


@dataclass(frozen=True)
class _Exported:
    """What a folder says of how codes are made."""

    weights: dict[str, torch.Tensor]
    architecture: dict[str, Any]
    """of cfg.json"""
    pursuit: str
    note: str


def _exported(dictionary: Dictionary) -> _Exported:
    if dictionary.encoder is None:
        return _exported_pursuit(dictionary)
    return _exported_autoencoder(dictionary, dictionary.encoder)


def _exported_pursuit(dictionary: Dictionary) -> _Exported:
    both = torch.cat([dictionary.atoms, -dictionary.atoms])
    architecture = {
        "architecture": "matching_pursuit",
        "apply_b_dec_to_input": True,
        "residual_threshold": 0.0,
        "max_iterations": dictionary.l0,
        "stop_on_duplicate_support": False,
    }
    n_atoms, pursuit = len(dictionary), dictionary.pursuit
    note = f"Latent j of {n_atoms} is acts[:, j] - acts[:, j + {n_atoms}]"
    if pursuit == "matching":
        note += ", and the codes are those of the dictionary."
    else:
        note += (
            f". sae-lens finds them by plain matching pursuit, the dictionary by the pursuit "
            f"{pursuit!r}: coefficients differ, later latents may, and the dictionary "
            "reconstructs better."
        )
    weights = {"W_dec": both, "b_dec": dictionary.offset}
    return _Exported(weights, architecture, pursuit, note)


def _exported_autoencoder(dictionary: Dictionary, encoder: SaeEncoder) -> _Exported:
    weights = {
        "W_enc": encoder.weight,
        "b_enc": encoder.bias,
        "W_dec": dictionary.atoms * encoder.norms[:, None],
        "b_dec": dictionary.offset,
    }
    if encoder.threshold is not None:
        weights["threshold"] = encoder.threshold
    architecture = {
        "architecture": encoder.architecture,
        "apply_b_dec_to_input": bool(torch.equal(encoder.center, dictionary.offset)),
    }
    if encoder.architecture == "topk":
        architecture["k"] = encoder.k
    note = f"An autoencoder ({encoder.architecture}) as it was imported."
    return _Exported(weights, architecture, "encoder", note)


def read_saelens(folder: Path) -> SaelensFolder:
    """A folder of a TopK, BatchTopK, JumpReLU or standard SAE. Raises ExchangeError with the
    reason for what is none, or one that no sum of atoms and one offset can stand for."""
    config, weights = _read_config(folder), _read_weights(folder)
    kind, encoding = _encoding(config, weights)
    try:
        w_enc, w_dec = weights["W_enc"], weights["W_dec"]
        b_enc, b_dec = weights["b_enc"], weights["b_dec"]
        threshold = encoding.get("threshold")
        _check_shapes(w_enc, w_dec, b_enc, b_dec, threshold)
    except KeyError as error:
        raise ExchangeError(f"{folder / WEIGHTS_FILE} lacks the tensor {error}.") from None
    if config.get("rescale_acts_by_decoder_norm"):  # the rule then decides on the whole term
        w_enc, b_enc = w_enc * w_dec.norm(dim=1), b_enc * w_dec.norm(dim=1)
        w_dec = torch.nn.functional.normalize(w_dec, dim=1)
    scale = _input_scale(folder, config)
    w_enc, w_dec, b_dec = w_enc * scale, w_dec / scale, b_dec / scale
    about = {**config, **_metadata(config)}
    return SaelensFolder(
        encoder=SaeEncoder(
            architecture=kind,
            weight=w_enc.contiguous(),
            bias=b_enc,
            center=b_dec if config.get("apply_b_dec_to_input", True) else torch.zeros_like(b_dec),
            norms=w_dec.norm(dim=1),
            k=encoding.get("k"),
            threshold=threshold,
        ),
        atoms=torch.nn.functional.normalize(w_dec, dim=1),
        offset=b_dec,
        model=_text(about.get("model_name")),
        hook_name=_text(about.get("hook_name", about.get("hook_point"))),
        context_length=_whole(about.get("context_size")),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise ExchangeError(
            f"{folder} is no SAELens folder: it has no {CONFIG_FILE}. Give the folder that "
            "SAE.save_model wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{path} can't be read: {error}.") from error
    if not isinstance(config, dict):
        raise ExchangeError(f"{path} holds no settings of an autoencoder.")
    wrong = config.get("reshape_activations", "none")
    if wrong != "none":
        raise ExchangeError(f"{path} reshapes its activations ({wrong}), for attention heads.")
    return config


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / WEIGHTS_FILE
    try:
        check_foreign(path)
        weights = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ExchangeError(f"{folder} is no SAELens folder: it has no {WEIGHTS_FILE}.") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ExchangeError(f"{path} can't be read as safetensors: {error}.") from error
    weights = {name: weight.float() for name, weight in weights.items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ExchangeError(f"{path} has values in {name} that are not finite.")
    if not (weights.get("scaling_factor", torch.ones(1, dtype=torch.float32)) == 1).all():
        raise ExchangeError(f"{path} has a finetuning scaling factor, which is not supported.")
    return weights


def _encoding(
    config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[str, dict[str, Any]]:
    """Which of our encoders does as the folder's architecture does, and its k or threshold."""
    named = str(config.get("architecture", "standard"))
    options = config.get("activation_fn_kwargs") or {}
    before_6 = config.get("activation_fn", config.get("activation_fn_str"))
    if named == "standard" and before_6 == "topk":  # so older versions called it
        named, config = "topk", {**config, "k": options.get("k")}
    if named == "topk":
        k = _whole(config.get("k"))
        if k is None or k < 1:
            raise ExchangeError(f"{CONFIG_FILE} gives no k for a TopK autoencoder.")
        return "topk", {"k": min(k, len(weights.get("b_enc", [0])))}
    if named == "batchtopk":  # after training it is a JumpReLU with one threshold for all
        if "topk_threshold" not in weights or "b_enc" not in weights:
            raise ExchangeError(f"{WEIGHTS_FILE} lacks the threshold of a BatchTopK autoencoder.")
        threshold = weights["topk_threshold"] * torch.ones_like(weights["b_enc"])
        return "jumprelu", {"threshold": threshold}
    if named == "jumprelu":
        threshold = weights.get("threshold")
        if threshold is None and "log_threshold" in weights:
            threshold = weights["log_threshold"].exp()
        if threshold is None:
            raise ExchangeError(f"{WEIGHTS_FILE} lacks the threshold of a JumpReLU autoencoder.")
        return "jumprelu", {"threshold": threshold}
    if named == "standard" and before_6 in (None, "relu"):
        return "standard", {}
    raise ExchangeError(
        f"Autoencoders of the kind {named!r} can't be imported. These can: batchtopk, "
        f"{', '.join(ARCHITECTURES)}."
    )


def _check_shapes(w_enc, w_dec, b_enc, b_dec, threshold) -> None:
    n_atoms, d_model = w_dec.shape if w_dec.ndim == 2 else (0, 0)
    fits = w_enc.shape == (d_model, n_atoms) and b_enc.shape == (n_atoms,)
    fits = fits and b_dec.shape == (d_model,) and n_atoms > 0
    if not fits or (threshold is not None and threshold.shape != (n_atoms,)):
        raise ExchangeError(
            f"The tensors of {WEIGHTS_FILE} do not fit each other: W_enc {list(w_enc.shape)}, "
            f"W_dec {list(w_dec.shape)}, b_enc {list(b_enc.shape)}, b_dec {list(b_dec.shape)}."
        )


def _input_scale(folder: Path, config: dict[str, Any]) -> float:
    """What activations are multiplied by before the encoder; 1 where they are taken as they are."""
    how = config.get("normalize_activations", "none")
    if how in ("none", False, None):
        return 1.0
    if how not in ("expected_average_only_in", True):
        raise ExchangeError(
            f"This autoencoder normalises each activation by itself ({how}), so that no sum of "
            'atoms and one offset gives the activation back. Choose one with "none".'
        )
    path = folder / SCALER_FILE
    try:
        factor = read_json(path)["scaling_factor"]
        if factor is None:  # folded into the weights at the end of training
            return 1.0
        if not 0 < float(factor) < float("inf"):
            raise ValueError(f"{factor} is no factor")
        return float(factor)
    except (OSError, ValueError, KeyError, TypeError):
        raise ExchangeError(
            "This autoencoder was trained on activations scaled to an average norm, and the "
            f"factor is not there: it stands in {SCALER_FILE}, beside the weights of a "
            "checkpoint. Put that file into the folder, or fold the factor in with sae-lens "
            "(fold_activation_norm_scaling_factor) and save again."
        ) from None


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _whole(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and float(value).is_integer() else None
