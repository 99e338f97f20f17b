"""Tiny trainings: their configuration, the runs that several test files read, comparisons."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import torch

from itda_core.activations.plan import make_plan
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.runs.run import NEAR_MISS_FILE, list_runs
from itda_core.training.trainer import resume, train

_SHARED: dict[tuple, Path] = {}


def tiny_config(model, corpus, dtype="float32", **changes):
    """Layers 0, 1 and 2 in some 16 windows; some prompts are cut, and layer 1 fills up.

    In float32, where the shapes of the forward passes change no more than the last digit.
    """
    fields = {
        "layers": (0, 1, 2),
        "max_tokens": 1_000,
        "context_length": 32,
        "max_atoms": 130,
        "l0": 4,
        "selection": "threshold",
        "explored_tokens": 600,
        "batch_tokens": 128,
    }
    spec = ModelSpec(str(model), dtype=dtype)
    return TrainConfig(spec, CorpusSpec(str(corpus)), **{**fields, **changes})


def long_config(folder, model, texts, copies=3, **changes):
    """A training of some ten windows and 2,000 steps, which can be stopped in the middle; of more
    with more copies of the texts."""
    corpus = folder / "long.txt"
    many = [f"{number} {text}" for number in range(copies) for text in texts]
    corpus.write_text("\n\n".join(many), encoding="utf-8")
    usual = {"layers": (1,), "max_tokens": 16_000, "batch_tokens": 4, "max_atoms": 300}
    return tiny_config(model, corpus, **{**usual, **changes})


def trained(config, runs):
    """Train to the end; returns a copy of each progress."""
    return [dataclasses.replace(progress) for progress in train(config, runs)]


def shared_runs(tmp_path_factory, model, corpus):
    """The folder of the runs of `tiny_config`, made once in a test session. Only to be read."""
    key = (model, corpus)
    if key not in _SHARED:
        _SHARED[key] = tmp_path_factory.mktemp("shared") / "runs"
        trained(tiny_config(model, corpus), _SHARED[key])
    return _SHARED[key]


def assert_same_runs(folder, other):
    """Both folders hold the same runs: the same dictionaries, codes, prompts and measures."""
    runs, others = (
        {run.run_id: run for run in list_runs(one)} for one in (Path(folder), Path(other))
    )
    assert runs
    assert set(runs) == set(others)
    for name, run in runs.items():
        assert_same_dictionaries(run.dictionary(), others[name].dictionary())
        files = ["codes.parquet", "prompts.parquet", "sources.parquet"]
        for file in [*files, *_of_some(NEAR_MISS_FILE, run, others[name])]:
            pd.testing.assert_frame_equal(
                pd.read_parquet(run.directory / file),
                pd.read_parquet(others[name].directory / file),
            )
        assert _without_time(run.metrics) == _without_time(others[name].metrics)


def _of_some(file, run, other):
    """A file that imports of autoencoders have not, where these two have it."""
    assert (run.directory / file).exists() == (other.directory / file).exists()
    return [file] if (run.directory / file).exists() else []


def assert_same_dictionaries(one: Dictionary, other: Dictionary):
    assert torch.equal(one.atoms, other.atoms)
    assert torch.equal(one.offset, other.offset)
    pd.testing.assert_frame_equal(one.sources, other.sources)
    assert one.words.tolist() == other.words.tolist()
    assert one.prompt_ids == other.prompt_ids
    assert (one.l0, one.hook_point, one.tokenizer) == (other.l0, other.hook_point, other.tokenizer)


def strict_json(text):
    """Parse JSON as other languages do: NaN and Infinity are no JSON."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _without_time(metrics):
    return {name: value for name, value in metrics.items() if name != "seconds"}


def captured(model, config):
    """What a training reads: a list of steps for each layer, and the source of each row.

    Each window is captured as a whole and falls into steps of `plan.step` rows, the last of them
    shorter. test_plan.py says which windows and what step.
    """
    prompts = load_corpus(config.corpus).training(config.seed)
    plan = make_plan(model, prompts, config, config.max_tokens)
    steps = {layer: [] for layer in config.layers}
    sources = []
    for first, last in plan.windows:
        rows = model.capture(plan.tokens(first, last), config.layers, config.skip_first)
        for layer in config.layers:
            for start in range(0, len(rows[layer]), plan.step):
                steps[layer].append(rows[layer][start : start + plan.step].numpy())
        for prompt, length in zip(plan.prompts[first:last], plan.lengths[first:last], strict=True):
            spans = model.tokenizer(prompt.text, return_offsets_mapping=True)["offset_mapping"]
            for position in range(config.skip_first, length):
                start, end = spans[position]
                sources.append((prompt.prompt_id, position, start, end, prompt.text[start:end]))
    return steps, sources


def advance(steps, stage, number=1):
    """Go on to the `number`th progress of a stage."""
    for progress in steps:
        number -= progress.stage == stage
        if number == 0:
            return progress
    raise AssertionError(f"there is no such progress at {stage}")


def finish(name, runs):
    """Resume, and check that nothing but the runs is left behind."""
    last = [*resume(name, runs)][-1]
    assert last.stage == "done"
    assert sorted(path.name for path in runs.iterdir()) == sorted(last.finished)
    return last
