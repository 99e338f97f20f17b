"""The trainings of autoencoders that the comparison is made of, one JSON file each.

Learning rates are chosen by the FVU on validation tokens of a sweep at a small budget, for each
layer and variant; epochs likewise for each budget, at layer 15. What a file holds is skipped, so
a stopped run goes on where it was.

OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.versus_sae.sae_grid [--phase NAME]
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.activations import use_cache
from benchmarks.common.captured import LAYERS, Captured, is_massive, one_quiet_thread
from benchmarks.common.quality import cost, reconstruction
from benchmarks.versus_sae.sae_training import VARIANTS, Checkpoint, SaeSettings, train_sae
from itda_core.config import HookPoint

CURVES = Path(__file__).resolve().parents[1] / "curves"
BUDGETS = {"1×": 4_096, "10×": 40_960, "100×": 409_600}
"""Distinct tokens"""
EPOCHS = {"1×": (10.0, 24.0), "10×": (8.0,), "100×": (1.0,)}
"""Passes over them. Early stopping takes the best checkpoint; where several are tried, the best."""
SWEEP_TOKENS = 65_536
LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3)
LR_FACTORS = {"1×": (1.0,), "10×": (1.0, 0.5)}
"""Of the sweep's learning rate, since longer trainings may want less; 100× takes that of 10×"""
SMOLLM2, MINILM = "smollm2-135m", "minilm-l6"
TRIED_AT = 15
"""The layer where what is not swept everywhere is tried, with TopK."""
_POINTS = {"sweep": 1, "massive": 1, "curve": 12}
"""Checkpoints at which a training is measured, the end included"""
_FIRST_POINT = 2_048
_SPLICED_AT = {"1×": (7,), "10×": (8,), "100×": (5, 8, 10)}
"""Points of a curve, besides the best and the last, at which the model's loss is measured"""


@dataclass(frozen=True)
class Job:
    """One training with its data, and the file that keeps its curve."""

    purpose: str
    """"sweep", "massive" or "curve"; only curves have the model's loss and points on the way"""
    model: str
    layer: int
    tokens: int
    settings: SaeSettings
    with_massive: bool = False

    @property
    def name(self) -> str:
        """What its file is called."""
        s = self.settings
        name = f"{self.purpose}-{self.model}-{self.layer}-{s.variant}-{self.tokens}x{s.epochs:g}"
        return f"{name}-lr{s.lr:g}-seed{s.seed}"

    @property
    def budget(self) -> str:
        """ "1×", "10×", "100×"; empty for other numbers of tokens"""
        return {tokens: name for name, tokens in BUDGETS.items()}.get(self.tokens, "")


def sweep(model: str, layer: int, variant: str) -> list[Job]:
    """Learning rates at a small budget, one pass; the highest, which failed at one layer, only
    there."""
    rates = LEARNING_RATES if (model, layer) == (SMOLLM2, TRIED_AT) else LEARNING_RATES[:-1]
    return [Job("sweep", model, layer, SWEEP_TOKENS, SaeSettings(variant, rate)) for rate in rates]


def best_lr(model: str, layer: int, variant: str) -> float:
    """The learning rate of the sweep with the lowest FVU on validation tokens."""
    return min(sweep(model, layer, variant), key=validated).settings.lr


def tried(budget: str) -> list[Job]:
    """Epochs and learning rates for one budget, at one layer with TopK."""
    lr, tokens = best_lr(SMOLLM2, TRIED_AT, "topk"), BUDGETS[budget]
    pairs = itertools.product(EPOCHS[budget], LR_FACTORS[budget])
    return [
        Job("curve", SMOLLM2, TRIED_AT, tokens, SaeSettings("topk", lr * factor, epochs))
        for epochs, factor in pairs
    ]


def best_of_tried(budget: str) -> tuple[float, float]:
    """Epochs, and the factor of the sweep's learning rate, with the lowest FVU on validation
    tokens."""
    if budget not in LR_FACTORS:
        return EPOCHS[budget][0], best_of_tried("10×")[1]
    best = min(tried(budget), key=validated).settings
    return best.epochs, best.lr / best_lr(SMOLLM2, TRIED_AT, "topk")


def massive_tried() -> Iterator[Job]:
    """The best of the sweep again, with tokens of massive activations."""
    settings = SaeSettings("topk", best_lr(SMOLLM2, TRIED_AT, "topk"))
    yield Job("massive", SMOLLM2, TRIED_AT, SWEEP_TOKENS, settings, with_massive=True)


def curve(model: str, layer: int, variant: str, budget: str, seed: int) -> Job:
    """One curve of the comparison, with the settings that the sweeps have chosen."""
    epochs, factor = best_of_tried(budget)
    lr = best_lr(model, layer, variant) * factor
    return Job("curve", model, layer, BUDGETS[budget], SaeSettings(variant, lr, epochs, seed=seed))


def read(job: Job) -> dict:
    """A finished curve."""
    return json.loads((CURVES / f"{job.name}.json").read_text(encoding="utf-8"))


def write_curve(path: Path, found: dict) -> None:
    """The file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(found, indent=1), encoding="utf-8")
    unfinished.rename(path)
    print(path.stem, best_point(found), flush=True)


def best_point(curve: dict) -> dict:
    """Early stopping: the checkpoint with the lowest FVU on validation tokens."""
    return min(curve["points"], key=lambda point: point.get("validation_fvu", 0.0))


def validated(job: Job) -> float:
    """The lowest FVU on validation tokens of a finished training."""
    return best_point(read(job))["validation_fvu"]


class Bench:
    """Runs jobs; keeps one layer's activations."""

    def __init__(self, folder: Path = CURVES) -> None:
        self.folder = folder
        self._captured: Captured | None = None

    def run(self, job: Job) -> None:
        """Train, measure and write the curve, unless it is there."""
        path = self.folder / f"{job.name}.json"
        if path.exists():
            return
        data = self.data(job.model, job.layer)
        x = data.block(job.tokens, job.settings.seed)
        massive = is_massive(x)
        if not job.with_massive:
            x = x[~massive]
        points = self._points(job, data, x)
        found = {
            "command": "python -m benchmarks.versus_sae.sae_grid",
            "purpose": job.purpose, "model": job.model, "layer": job.layer,
            "distinct_tokens": len(x), "massive_tokens": int(massive.sum()),
            "with_massive": job.with_massive, "settings": asdict(job.settings),
            "versions": {name: version(name) for name in ("sae-lens", "torch")},
            "points": points,
        }  # fmt: skip
        write_curve(path, found)

    def _points(self, job: Job, data: Captured, x: torch.Tensor) -> list[dict]:
        validation = data.validation[~is_massive(data.validation)]
        points, best, best_autoencoder = [], None, None
        steps = train_sae(x, validation, job.settings, data.hook_point, _marks(len(x), job))
        for number, checkpoint in enumerate(steps):
            point = _measured(checkpoint, data, validation, len(x))
            points.append(point)
            if job.purpose == "curve" and number in _SPLICED_AT.get(job.budget, ()):
                point.update(self.cost(checkpoint.autoencoder))
            if best is None or point["validation_fvu"] < best["validation_fvu"]:
                best, best_autoencoder = point, checkpoint.autoencoder
        if job.purpose == "curve":
            best.update(self.cost(best_autoencoder))
            if best is not points[-1]:
                points[-1].update(self.cost(checkpoint.autoencoder))
        return points

    def cost(self, coder) -> dict[str, float]:
        """What a coder's reconstructions cost the model; nothing for an encoder, which predicts no
        next token."""
        return cost(coder) if coder.hook_point.model == SMOLLM2 else {}

    def data(self, model: str, layer: int) -> Captured:
        """The stored activations of one layer."""
        hook_point = HookPoint(model, layer)
        if self._captured is None or self._captured.hook_point != hook_point:
            self._captured = Captured(hook_point)
        return self._captured


def _marks(n_tokens: int, job: Job) -> list[int]:
    """Tokens seen at each checkpoint, evenly spaced by their logarithm."""
    total = n_tokens * job.settings.epochs
    return np.geomspace(_FIRST_POINT, total, _POINTS[job.purpose])[:-1].astype(int).tolist()


def _measured(
    checkpoint: Checkpoint, data: Captured, validation: torch.Tensor, distinct: int
) -> dict[str, float]:
    validated = reconstruction(checkpoint.autoencoder, validation)
    return {
        "seconds": checkpoint.seconds,
        "tokens": checkpoint.tokens,
        "distinct": min(checkpoint.tokens, distinct),
        "dead": checkpoint.dead,
        "validation_fvu": validated["fvu"],
        **reconstruction(checkpoint.autoencoder, data.held_out),
    }


def phases() -> dict[str, Iterator[Job]]:
    """What is run, the most needed first. Each phase needs those before it."""
    smollm2 = [(layer, variant) for layer in (15, 7, 22) for variant in VARIANTS]
    minilm = [(LAYERS[MINILM][0], variant) for variant in VARIANTS]

    def curves(places, budgets, seeds, model=SMOLLM2):
        for seed, budget, place in itertools.product(seeds, budgets, places):
            yield curve(model, *place, budget, seed)

    def sweeps(places, model=SMOLLM2):
        return itertools.chain.from_iterable(sweep(model, *place) for place in places)

    return {
        "sweep": sweeps(smollm2),
        "tried": itertools.chain.from_iterable(tried(budget) for budget in LR_FACTORS),
        "layer 15": curves(smollm2[:2], BUDGETS, [0]),
        "layer 7": curves(smollm2[2:4], BUDGETS, [0]),
        "layer 22": curves(smollm2[4:], BUDGETS, [0]),
        "massive": massive_tried(),
        "seeds": curves(smollm2[:2], BUDGETS, [1, 2]),
        "other seeds": curves(smollm2[2:], ("1×", "10×"), [1, 2]),
        "minilm sweep": sweeps(minilm, MINILM),
        "minilm": curves(minilm, BUDGETS, [0], MINILM),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--phase", choices=phases(), action="append", help="default: all")
    chosen = options.parse_args()
    one_quiet_thread()
    use_cache()
    bench = Bench()
    for name, jobs in phases().items():
        if name in (chosen.phase or phases()):
            for job in jobs:
                bench.run(job)


if __name__ == "__main__":
    main()
