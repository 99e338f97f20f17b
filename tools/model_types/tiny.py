"""A tiny random model of any type, as a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from tools.model_types.configuration import tiny_config
from tools.model_types.listing import ModelType
from tools.model_types.tokenizer import make_tokenizer

_SEED = 0
_STD = 0.15
"""Of weights whose own is smaller: 0.02 is made for widths of a thousand, and at 32 all tokens
would be alike"""
_LARGEST = 20.0


def save_tiny(one: ModelType, folder: Path) -> None:
    """A random model of about 32 dimensions and 3 layers, with its tokenizer; the same each time.

    Raises whatever transformers does where it can't make one, ImportError for a package that is
    not installed.
    """
    model = tiny_model(one)
    model.save_pretrained(folder)
    make_tokenizer(one.kind).save_pretrained(folder)


def tiny_model(one: ModelType) -> torch.nn.Module:
    """The model alone: float32, in evaluation."""
    torch.manual_seed(_SEED)
    config = tiny_config(one)
    with _uninitialised_as_nan():
        model = one.auto_class.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                _make_telling(parameter)
    return model.eval()


@contextlib.contextmanager
def _uninitialised_as_nan() -> Iterator[None]:
    """Memory that nobody fills is NaN, so that it can be told from weights."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _make_telling(parameter: torch.Tensor) -> None:
    """Every weight matters: none is zero, one or tiny throughout, and none is uninitialised."""
    noise = torch.randn_like(parameter) * (_STD if parameter.ndim > 1 else 0.1)
    unusable = ~torch.isfinite(parameter) | (parameter.abs() > _LARGEST)
    parameter.copy_(torch.where(unusable, noise, parameter))
    std = parameter.std().item() if parameter.numel() > 1 else 0.0
    if parameter.ndim > 1 and 0 < std < _STD:
        parameter.mul_(_STD / std)
    elif std == 0:
        parameter.add_(noise)
