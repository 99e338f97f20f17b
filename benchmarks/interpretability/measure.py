"""Do the latents of a dictionary explain themselves, and are they useful features? Beside
autoencoders of the same size, made from the same tokens.

.venv/bin/python -m benchmarks.interpretability.measure [--quick | --only-report] [--against NAME]

What .cache/benchmarks/interpretability holds is not made again, so that a stopped run goes on where
it was; remove that folder to measure anew.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.activations import CACHE, use_cache
from benchmarks.common.captured import one_quiet_thread
from benchmarks.common.harness import machine
from benchmarks.interpretability import report as reporting
from benchmarks.interpretability.runs import (
    CORPUS,
    ITDA,
    LAYER,
    METHODS,
    Sizes,
    make_run,
    settings,
    titled_by_strongest,
)
from benchmarks.versus_sae.sae_grid import CURVES, SMOLLM2
from itda_core.evaluation.batch import held_out_prompts
from itda_core.evaluation.detection import EMBEDDER, detect
from itda_core.evaluation.sparse_probing import probe
from itda_core.model.loading import load_model
from itda_core.model.model import Activations, Model
from itda_core.model.tokens import Tokens
from itda_core.runs.run import Run

FOUND = CURVES / "interpretability.json"
FOLDER = CACHE / "interpretability"
_QUICK = Sizes(tokens=4_096, explored=4_096, probed=8_192, latents=40, atoms=512, epochs=2.0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options.add_argument(
        "--only-report", action="store_true", help=f"from {FOUND.name}, which ships"
    )
    autoencoders = [name for name in METHODS if name != ITDA]
    options.add_argument("--against", choices=autoencoders, action="append", help="default: all")
    chosen = options.parse_args()
    one_quiet_thread()
    use_cache()
    methods = [ITDA, *(chosen.against or autoencoders)]
    if chosen.quick:
        with tempfile.TemporaryDirectory(prefix="itda-bench-") as folder:
            found = measure(methods, _QUICK, Path(folder))
        reporting.tables(found)
        return
    if not chosen.only_report:
        found = measure(methods, Sizes(), FOLDER)
        FOUND.write_text(json.dumps(found, indent=1), encoding="utf-8")
    reporting.report(json.loads(FOUND.read_text(encoding="utf-8")))


def claims() -> list[dict[str, object]]:
    """Rows for docs/claims.md: claim, command, figure, holds."""
    return reporting.claims(json.loads(FOUND.read_text(encoding="utf-8")))


def measure(methods: Sequence[str], sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Everything that the report needs, as JSON types."""
    model = Remembering(load_model(SMOLLM2))
    return {
        "purpose": "interpretability",
        "model": SMOLLM2,
        "layer": LAYER,
        "corpus": CORPUS,
        "embedder": EMBEDDER,
        "sizes": asdict(sizes),
        "methods": {name: _measured(name, sizes, folder, model) for name in methods},
        "machine": {**machine(), "model's dtype": model.dtype},
    }


def _measured(method: str, sizes: Sizes, folder: Path, model: "Remembering") -> dict[str, Any]:
    run = make_run(method, sizes, folder)
    parts = {
        "detection": lambda: _detected(run, sizes),
        "probing": lambda: _probed(run, sizes, model),
    }
    if method == ITDA:
        shadow = folder / "strongest"
        parts["by_strongest"] = lambda: _detected(titled_by_strongest(run, shadow), sizes)
    found = {"about": _about(method, run, sizes)}
    for name, make in parts.items():
        found[name] = _kept(folder / f"{method}-{name}.json", make)
        print(f"{method}: {name} is measured", flush=True)
    return found


def _about(method: str, run: Run, sizes: Sizes) -> dict[str, Any]:
    """How a run was made, and what it is like on the explored tokens."""
    variant = METHODS[method]
    how = run.config.method if variant is None else asdict(settings(variant, sizes))
    measures = {name: run.metrics.get(name) for name in ("atoms", "fvu", "unused_share")}
    return {"made": how, **measures}


def _detected(run: Run, sizes: Sizes) -> list[dict[str, Any]]:
    *_, last = detect(run, load_model(EMBEDDER), sizes.latents)
    return last.scores


def _probed(run: Run, sizes: Sizes, model: "Remembering") -> dict[str, Any]:
    prompts = held_out_prompts(run)
    *_, last = probe(run.dictionary(), model, prompts, run.config, sizes.probed)
    return {"tokens": last.tokens, "results": last.results}


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """What the file holds, made and written where it is not there."""
    if not path.exists():
        made = json.dumps(make(), indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(made, encoding="utf-8")
        unfinished.rename(path)
    return json.loads(path.read_text(encoding="utf-8"))


class Remembering:
    """A model that computes the activations of the same tokens once, for all that are probed."""

    def __init__(self, model: Model):
        self._model = model
        self._kept: dict[tuple, Activations] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def capture(
        self, tokens: Tokens, layers: Sequence[int], skip_first: bool = True
    ) -> Activations:
        """As the model's own."""
        key = (_bytes(tokens.ids), _bytes(tokens.mask), *layers, skip_first)
        if key not in self._kept:
            self._kept[key] = self._model.capture(tokens, layers, skip_first)
        return self._kept[key]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


if __name__ == "__main__":
    main()
