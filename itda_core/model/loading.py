"""From a model's name to the model: built-in, on the hub, or in a local folder."""

import functools
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from itda_core.config import ModelSpec
from itda_core.digests import digest
from itda_core.errors import ModelError
from itda_core.model.built_in import (
    BUILT_IN,
    DIGEST_PREFIX,
    ModelShape,
    built_in_folder,
    is_installed,
    quieten,
)
from itda_core.model.model import Model
from itda_core.model.process_lock import alone

_PROBE_SHAPE = (512, 1_024, 1_024)
"""A product of an MLP's size, some milliseconds."""
_WORTH_IT = 1.3
"""A gain in speed for which rounding to eight bits is accepted."""
_FINGERPRINT_BLOCKS = 64
_FINGERPRINT_BLOCK_BYTES = 65_536


@alone
def load_model(name: str | ModelSpec, dtype: str | None = None, device: str | None = None) -> Model:
    """A built-in model, one from the hub, or one in a local folder, ready to capture from.

    dtype: "float32", "bfloat16", "float16" or "auto" (bfloat16 where the device computes faster in
    it, else float32); by default that of a ModelSpec, and float32 for a name. device: "cuda", "mps"
    or "cpu", by default the first of these that there is.
    Only safetensors weights are read, and code that comes with a model is never run. Raises
    ModelError with the remedy.
    """
    spec = name if isinstance(name, ModelSpec) else ModelSpec(name, dtype="float32")
    device = device or best_device()
    weights = resolved_dtype(dtype or spec.dtype, device)
    source = _resolve(spec)
    module, tokenizer = _from_pretrained(spec.name, source, spec.revision, weights)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"The tokenizer of {spec.name} gives no character spans (not a fast one).")
    return Model(spec.name, module.to(device), tokenizer, digest=_digest(spec, source, module))


def best_device() -> str:
    """CUDA, else MPS, else CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@alone
def model_shape(spec: ModelSpec) -> ModelShape | None:
    """The shape of a built-in model, a local folder or a model in the hub's cache; else None.

    Only a configuration is read, never weights, and the network is not asked.
    """
    if spec.name in BUILT_IN:
        return BUILT_IN[spec.name].shape
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            spec.name, revision=spec.revision, local_files_only=True, trust_remote_code=False
        ).get_text_config()
        width = int(config.hidden_size)
        intermediate = int(getattr(config, "intermediate_size", None) or 4 * width)
        return ModelShape(int(config.num_hidden_layers), width, intermediate, config.vocab_size)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


@alone
def known_models() -> list[dict[str, str]]:
    """The built-in models and those in the hub's cache here: name, where, description."""
    models = [
        {
            "model": name,
            "where": "built in" if is_installed(name) else "not installed",
            "description": f"{built_in.title}, {built_in.shape.n_layers} layers, "
            f"d_model {built_in.shape.d_model}",
        }
        for name, built_in in BUILT_IN.items()
    ]
    return models + [
        {"model": name, "where": "hub cache", "description": ""} for name in _cached_models()
    ]


def _cached_models() -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(
        repository.repo_id for repository in repositories if repository.repo_type == "model"
    )


def resolved_dtype(dtype: str, device: str) -> torch.dtype:
    """What a setting such as "auto" comes to on a device."""
    if dtype == "auto":
        return torch.bfloat16 if _is_bfloat16_faster(device) else torch.float32
    return getattr(torch, dtype)


@functools.cache
def _is_bfloat16_faster(device: str) -> bool:
    """By a short probe on a CPU: some have bfloat16 instructions and some only imitate them."""
    if device != "cpu":
        return device == "cuda" and torch.cuda.is_bf16_supported()
    a, b = (
        torch.ones(_PROBE_SHAPE[:2], dtype=torch.float32),
        torch.ones(_PROBE_SHAPE[1:], dtype=torch.float32),
    )
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(5):
        for kind in seconds:
            x, y = a.to(kind), b.to(kind)
            started = time.perf_counter()
            x @ y
            seconds[kind] = min(seconds[kind], time.perf_counter() - started)
    return seconds[torch.float32] > _WORTH_IT * seconds[torch.bfloat16]


def _resolve(spec: ModelSpec) -> str:
    """A folder with config.json and safetensors, or a hub id."""
    if spec.name in BUILT_IN:
        return str(built_in_folder(spec.name))
    # pathlib's own tests raise for names that no folder can have, such as very long ones.
    path = Path(os.path.expanduser(spec.name))  # noqa: PTH111
    if os.path.isdir(path):  # noqa: PTH112
        if not (path / "config.json").exists():
            raise ModelError(f"The folder {path} holds no model: it has no config.json.")
        if not any(path.glob("*.safetensors")):
            raise ModelError(
                f"The folder {path} has no safetensors weights. Other formats can run code when "
                "they are read; convert it with save_pretrained first."
            )
        return str(path)
    if path.is_absolute() or spec.name.startswith((".", "~")) or os.path.exists(path):  # noqa: PTH110
        raise ModelError(f"There is no model folder {path}. Check the path.")
    return spec.name


def _from_pretrained(name: str, source: str, revision: str | None, dtype: torch.dtype):
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    quieten()
    options = {"revision": revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        kind = AutoModelForCausalLM if _predicts_next_token(config) else AutoModel
        module = kind.from_pretrained(source, dtype=dtype, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # transformers and the hub client raise a dozen kinds
        raise ModelError(_why_not(name, source, error)) from error
    return module, tokenizer


def _predicts_next_token(config) -> bool:
    architectures = config.architectures or []
    if architectures:
        endings = ("CausalLM", "LMHeadModel", "ForConditionalGeneration")
        return any(name.endswith(endings) for name in architectures)
    return not getattr(config, "is_encoder_decoder", False) and config.model_type not in ("bert",)


def _why_not(name: str, source: str, error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return f"{name} does not fit into memory. Choose a smaller model."
    if os.path.isdir(source):  # noqa: PTH112
        return f"The folder {source} can't be loaded as a model: {_first_line(error)}"
    return (
        f"The model {name!r} is not built in ({', '.join(BUILT_IN)}), is not a folder here, and "
        f"can't be had from the hub: {_first_line(error)} Check the name and the network, or use "
        "a built-in model."
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0][:200].rstrip(".")
    return f"{line or type(error).__name__}."


def _digest(spec: ModelSpec, source: str, module) -> str:
    """Names a model's content: package version, hub commit, or a sample of the local files."""
    if spec.name in BUILT_IN:
        return f"{DIGEST_PREFIX}{BUILT_IN[spec.name].version}"
    if not Path(source).is_dir():
        return getattr(module.config, "_commit_hash", None) or (spec.revision or "")
    return digest(_sample(Path(source)))


def _sample(folder: Path) -> Iterator[str | bytes]:
    """Names, sizes and blocks of a model's files."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        size = path.stat().st_size
        yield f"{path.name} {size}"
        with path.open("rb") as file:
            for block in range(_FINGERPRINT_BLOCKS):
                file.seek(block * size // _FINGERPRINT_BLOCKS)
                yield file.read(_FINGERPRINT_BLOCK_BYTES)
