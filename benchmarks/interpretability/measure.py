"""Do the latents of a dictionary explain themselves, and are they useful features? Beside
autoencoders of the same size, made from the same tokens.

.venv/bin/python -m benchmarks.interpretability.measure [--quick | --only-report] [--against NAME]
.venv/bin/python -m benchmarks.interpretability.measure --only detection    the rest stays as it is

What .cache/benchmarks/interpretability holds is not made again, so that a stopped run goes on where
it was; remove that folder to measure anew.
"""

import argparse
import json
import math
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
from benchmarks.interpretability.strong import strong_uses
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
_SHAPE = 2
"""Of what is kept of a part, in its file's name: files of an earlier shape are not read"""
PARTS = {
    "detection": ("strong", "detection", "by_strongest", "by_share"),
    "probing": ("probing",),
}
"""What can be measured alone, with its entries"""
_QUICK = Sizes(tokens=4_096, explored=4_096, probed=8_192, latents=40, atoms=512, epochs=2.0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options.add_argument(
        "--only-report", action="store_true", help=f"from {FOUND.name}, which ships"
    )
    autoencoders = [name for name in METHODS if name != ITDA]
    options.add_argument("--against", choices=autoencoders, action="append", help="default: all")
    options.add_argument("--only", choices=[*PARTS], help="what is measured anew")
    chosen = options.parse_args()
    if chosen.only and chosen.against:
        options.error("--only measures it of every method that the file has: leave --against out.")
    one_quiet_thread()
    use_cache()
    methods = [ITDA, *(chosen.against or autoencoders)]
    if chosen.quick:
        with tempfile.TemporaryDirectory(prefix="itda-bench-") as folder:
            found = measure(methods, _QUICK, Path(folder))
        reporting.tables(found)
        return
    if not chosen.only_report:
        found = measure(methods, Sizes(), FOLDER, chosen.only)
        if chosen.only:
            found = merged(json.loads(FOUND.read_text(encoding="utf-8")), found)
        FOUND.write_text(json.dumps(found, indent=1), encoding="utf-8")
    reporting.report(json.loads(FOUND.read_text(encoding="utf-8")))


def claims() -> list[dict[str, object]]:
    """Rows for docs/claims.md: claim, command, figure, holds."""
    return reporting.claims(json.loads(FOUND.read_text(encoding="utf-8")))


def measure(
    methods: Sequence[str], sizes: Sizes, folder: Path, only: str | None = None
) -> dict[str, Any]:
    """Everything that the report needs, or one of PARTS of it, as JSON types."""
    model, found = Remembering(load_model(SMOLLM2)), {}
    for name in methods:
        share = found[ITDA]["strong"]["squares"] if ITDA in found and only != "probing" else None
        found[name] = _measured(name, sizes, folder, model, share, only)
    return {
        "purpose": "interpretability",
        "model": SMOLLM2,
        "layer": LAYER,
        "corpus": CORPUS,
        "embedder": EMBEDDER,
        "sizes": asdict(sizes),
        "methods": found,
        "machine": {**machine(), "model's dtype": model.dtype},
    }


def merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What is known with what was measured anew in place of it; the machine is that of the rest.
    Ends the program where the new is of other sizes or runs."""
    same = known["sizes"] == new["sizes"] and [*known["methods"]] == [*new["methods"]]
    both = [(one["about"], known["methods"].get(name)) for name, one in new["methods"].items()]
    if not same or not all(_is_alike(about, old["about"]) for about, old in both):
        raise SystemExit(f"{FOUND.name} is of other runs: measure everything, without --only.")
    methods = {name: {**old, **new["methods"][name]} for name, old in known["methods"].items()}
    return {**known, "methods": methods}


def _is_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two are of the same run, made again: rounding may differ."""
    return one["made"] == other["made"] and math.isclose(one["fvu"], other["fvu"], rel_tol=1e-6)


def _measured(
    method: str,
    sizes: Sizes,
    folder: Path,
    model: "Remembering",
    share: float | None,
    only: str | None,
) -> dict[str, Any]:
    """share: see `strong_uses`."""
    run = make_run(method, sizes, folder)
    parts = {
        "strong": lambda: strong_uses(run, share),
        "detection": lambda: _detected(run, sizes, share),
        "probing": lambda: _probed(run, sizes, model),
    }
    if method == ITDA:
        shadow = folder / "strongest"
        parts["by_strongest"] = lambda: _detected(titled_by_strongest(run, shadow), sizes)
        parts["by_share"] = lambda: _by_share(run, sizes, found["strong"]["squares"])
    found = {"about": _about(method, run, sizes)}
    for name, make in parts.items():
        if only is None or name in PARTS[only]:
            path = folder / f"{method}-{name}-{_SHAPE}.json"
            if only:  # asked for anew
                path.unlink(missing_ok=True)
            found[name] = _kept(path, make)
            print(f"{method}: {name} is measured", flush=True)
    return found


def _by_share(run: Run, sizes: Sizes, share: float) -> dict[str, Any]:
    """The dictionary's strong uses told as those of an autoencoder are."""
    scores = _detected(run, sizes, share)
    return {
        "strong": strong_uses(run, share),
        "detection": [row for row in scores if row["uses"] == "strong"],
    }


def _about(method: str, run: Run, sizes: Sizes) -> dict[str, Any]:
    """How a run was made, and what it is like on the explored tokens."""
    variant = METHODS[method]
    how = run.config.method if variant is None else asdict(settings(variant, sizes))
    measures = {name: run.metrics.get(name) for name in ("atoms", "fvu", "unused_share")}
    return {"made": how, **measures}


def _detected(run: Run, sizes: Sizes, share: float | None = None) -> list[dict[str, Any]]:
    *_, last = detect(run, load_model(EMBEDDER), sizes.latents, strong_share=share)
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
