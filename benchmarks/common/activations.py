"""Real activations for the benchmarks: SmolLM2 on the built-in corpus, captured once."""

import os
from pathlib import Path

import numpy as np
import torch

from itda_core.activations.plan import Plan, make_plan
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.model.loading import load_model
from itda_core.model.model import Model

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "benchmarks"
LAYERS = (7, 15, 22)


def use_cache() -> None:
    """Converted models go where the tests keep theirs, not into the user's data folder."""
    os.environ.setdefault("ITDA_DATA", str(CACHE.parent / "test-data"))


def smollm2(dtype: str = "auto", device: torch.device | None = None) -> Model:
    """device: by default the first that there is."""
    use_cache()
    return load_model(ModelSpec("smollm2-135m", dtype=dtype), device=device and str(device))


def config(max_tokens: int, **fields) -> TrainConfig:
    """A training of the three layers on `max_tokens` tokens of the built-in corpus."""
    model, corpus = ModelSpec("smollm2-135m"), CorpusSpec("sotu")
    return TrainConfig(model, corpus, LAYERS, max_tokens=max_tokens, **fields)


def plan_of(model: Model, training: TrainConfig) -> Plan:
    """What a training reads."""
    prompts = load_corpus(training.corpus).training(training.seed)
    return make_plan(model, prompts, training, training.max_tokens)


def activations(layer: int, count: int) -> torch.Tensor:
    """[count, 576] float32 of one layer, in random order, the same at each call."""
    path = CACHE / f"smollm2-{layer}-{count}.npy"
    if not path.exists():
        model, training = smollm2(), config(count)
        plan, rows = plan_of(model, training), []
        for first, last in plan.windows:
            rows.append(model.capture(plan.tokens(first, last), [layer])[layer])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, torch.cat(rows).numpy())
    x = torch.from_numpy(np.load(path))
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
