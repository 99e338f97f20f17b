"""How fast this machine trains an autoencoder, and runs the model: measured when nothing else runs.

OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.versus_sae.pace

The curves of autoencoders took hours, on several days. Their times are told in the pace measured
here, minutes before the dictionaries are timed: tokens seen × CPU seconds per token.
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import captured
from benchmarks.common.activations import use_cache
from benchmarks.common.captured import LAYERS, Captured, one_quiet_thread
from benchmarks.common.harness import machine
from benchmarks.versus_sae import sae_grid
from benchmarks.versus_sae.sae_training import VARIANTS, SaeSettings, train_sae
from itda_core.activations.plan import make_plan
from itda_core.config import HookPoint
from itda_core.corpus.corpus import load_corpus
from itda_core.model.loading import load_model

FILE = "pace.json"
_WARM, _TOKENS, _ROUNDS = 2_048, 16_384, 3
_LAYER = {"smollm2-135m": 15, "minilm-l6": 3}
_FORWARD_TOKENS = 4_096


def measure() -> dict:
    """CPU seconds per token: training each variant of autoencoder for each model ("autoencoder"),
    and the forward pass up to each layer ("forward")."""
    return {"autoencoder": _autoencoders(), "forward": forward(), "machine": machine()}


def _autoencoders() -> list[dict]:
    """Median of three rounds, the variants in turn, over the stretch of a curve from its first
    checkpoint on, when everything is compiled and loaded, to 16,384 tokens."""
    rows = []
    for model, layer in _LAYER.items():
        data = Captured(HookPoint(model, layer))
        x = data.block(_TOKENS, 0)
        x = x[~captured.is_massive(x)]
        seconds = {variant: [] for variant in VARIANTS}
        for _ in range(_ROUNDS):
            for variant in VARIANTS:
                settings = SaeSettings(variant, sae_grid.best_lr(model, layer, variant))
                steps = train_sae(x, data.validation, settings, data.hook_point, [_WARM])
                warm, last = [(step.tokens, step.seconds) for step in steps]
                seconds[variant].append((last[1] - warm[1]) / (last[0] - warm[0]))
        rows += [
            {"model": model, "variant": variant, "seconds": statistics.median(some)}
            for variant, some in seconds.items()
        ]
    return rows


def forward() -> list[dict]:
    """On one thread: what every method has to wait for, dictionary or autoencoder."""
    rows = []
    for name, layers in LAYERS.items():
        settings = captured.config(name)
        model, corpus = load_model(settings.model), load_corpus(settings.corpus)
        plan = make_plan(model, corpus.training(0), settings, _FORWARD_TOKENS)
        tokens = plan.tokens(0, len(plan.prompts))
        for layer in layers:
            started = time.process_time()
            model.capture(tokens, [layer])
            seconds = (time.process_time() - started) / plan.total_rows
            rows.append({"model": name, "layer": layer, "seconds": seconds, "dtype": model.dtype})
    return rows


def paced(points: Sequence[dict], model: str, variant: str, pace: dict | None) -> tuple[dict, ...]:
    """A curve's points with their seconds in the pace of `measure`: its seconds for the stretch
    that was measured become those, and all others change by the same factor, so that steps which
    are slower late (dead latents) stay so. Unchanged without a pace."""
    rows = pace["autoencoder"] if pace else []
    found = [r["seconds"] for r in rows if (r["model"], r["variant"]) == (model, variant)]
    if not found:
        return tuple(points)
    tokens, seconds = ([point[name] for point in points] for name in ("tokens", "seconds"))
    first, last = np.interp([_WARM, _TOKENS], tokens, seconds)
    factor = found[0] * (_TOKENS - _WARM) / float(last - first)
    return tuple({**point, "seconds": factor * point["seconds"]} for point in points)


def read(folder: Path) -> dict | None:
    """The pace beside the curves of a folder; None where it was not measured."""
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main() -> None:
    one_quiet_thread()
    use_cache()
    found = measure()
    (sae_grid.CURVES / FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
