"""Activations captured once and shared by every method that is compared, kept on disk.

The first VALIDATION rows of the training prompts belong to nobody's training: early stopping and
thresholds are judged on them. Budgets are blocks of the rows after them; other seeds take other
blocks while there are rows enough.

.venv/bin/python -m benchmarks.common.captured [--rows N]
"""

import argparse
import contextlib
import ctypes
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.activations import CACHE, use_cache
from itda_core.activations.massive import massive
from itda_core.activations.plan import make_plan
from itda_core.config import CorpusSpec, HookPoint, ModelSpec, TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.model.loading import load_model
from itda_core.settings import RESID_POST

LAYERS = {"smollm2-135m": (7, 15, 22), "minilm-l6": (3,)}
VALIDATION = 4_096
HELD_OUT = 8_192
ROWS = VALIDATION + 409_600
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Captured:
    """The stored activations of one layer."""

    hook_point: HookPoint

    @cached_property
    def held_out(self) -> torch.Tensor:
        """[HELD_OUT, d_model] float32 of prompts that nothing is trained on."""
        return self._read("held", 0, HELD_OUT)

    @cached_property
    def validation(self) -> torch.Tensor:
        """[VALIDATION, d_model] float32 of training prompts that nothing is trained on."""
        return self._read("train", 0, VALIDATION)

    def block(self, tokens: int, seed: int) -> torch.Tensor:
        """[tokens, d_model] float32: the rows that `seed` trains on, the first ones for all seeds
        where there are too few for blocks of their own."""
        start = seed * tokens if (seed + 1) * tokens <= ROWS - VALIDATION else 0
        first, last = VALIDATION + start, VALIDATION + start + tokens
        there = int(_progress(self.hook_point.model, "train").read_text() or 0)
        if last > there:
            raise ValueError(
                f"{there:,} rows of {self.hook_point.model} are captured, {last:,} are needed: "
                "run python -m benchmarks.common.captured."
            )
        return self._read("train", first, tokens)

    def _read(self, part: str, start: int, count: int) -> torch.Tensor:
        path = _file(self.hook_point, part)
        return torch.from_numpy(np.array(np.load(path, mmap_mode="r")[start : start + count]))


def one_quiet_thread() -> None:
    """What every timed process starts with: one thread, and freed memory kept for the next step.

    Giving each step's arrays back to the system and asking for them again costs a third of the
    time of an autoencoder's step.
    """
    torch.set_num_threads(1)
    with contextlib.suppress(AttributeError, OSError):  # only where the C library is glibc
        set_option = ctypes.CDLL(None).mallopt
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            set_option(option, 2**30)


def is_massive(x: torch.Tensor) -> torch.Tensor:
    """[n_tokens] bool: which rows of `x`, [n_tokens, d_model], have massive activations."""
    norms = x.norm(dim=1)
    return massive(norms, float(norms.median()))


def config(name: str) -> TrainConfig:
    """How prompts are read: 128 tokens of each, without the first, in float32 on every machine."""
    return TrainConfig(ModelSpec(name, dtype="float32"), CorpusSpec("sotu"), LAYERS[name])


def capture(name: str, rows: int) -> None:
    """Write what is missing of a model's activations."""
    use_cache()
    model, corpus = load_model(config(name).model), load_corpus(config(name).corpus)
    parts = (("held", corpus.held_out(), HELD_OUT), ("train", corpus.training(0), rows))
    for part, prompts, count in parts:
        done = _progress(name, part)
        if done.exists() and int(done.read_text() or 0) >= count:
            continue
        plan, row = make_plan(model, prompts, config(name), count), 0
        done.parent.mkdir(parents=True, exist_ok=True)
        files = {
            layer: np.lib.format.open_memmap(
                _file(HookPoint(name, layer), part), "w+", np.float32, (count, model.d_model)
            )
            for layer in LAYERS[name]
        }
        for first, last in plan.windows:
            found = model.capture(plan.tokens(first, last), LAYERS[name])
            for layer, x in found.items():
                files[layer][row : row + len(x)] = x.numpy()
            row += len(found.prompts)
            done.write_text(str(row))
            print(f"{name} {part}: {row:,} of {count:,} rows", flush=True)


def _file(hook_point: HookPoint, part: str) -> Path:
    site = "" if hook_point.site == RESID_POST else f"-{hook_point.site}"
    return CACHE / f"{hook_point.model}-{hook_point.layer}{site}-{part}.npy"


def _progress(name: str, part: str) -> Path:
    return CACHE / f"{name}-{part}.progress"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=ROWS, help="rows of training prompts")
    options.add_argument("--model", choices=LAYERS, action="append")
    chosen = options.parse_args()
    for name in chosen.model or LAYERS:
        capture(name, chosen.rows)


if __name__ == "__main__":
    main()
