"""The estimate before a training: there without loading anything, and of the right size."""

import dataclasses

import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.jobs import estimate as estimate_module
from itda_core.jobs.estimate import estimate, evaluation_seconds
from tests.support.trained_runs import tiny_config, trained

CONFIG = TrainConfig(ModelSpec("smollm2-135m"), CorpusSpec("sotu"), (7,))


@pytest.fixture(autouse=True)
def steady_speed(monkeypatch):
    monkeypatch.setattr(estimate_module, "_product_speed", lambda _device: 5e10)


def test_a_built_in_model_is_estimated_without_loading_it(data_folder):
    found = estimate(CONFIG)
    assert found.seconds > 0
    assert not data_folder.exists()


@pytest.mark.parametrize("name", ["nobody/nothing", "/no/such/folder", "x" * 5_000])
def test_an_unknown_model_has_no_estimate(name):
    assert estimate(dataclasses.replace(CONFIG, model=ModelSpec(name))) is None


@pytest.mark.parametrize(
    "changes",
    [{"max_tokens": 131_072}, {"layers": (20,)}, {"layers": (6, 7)}, {"max_atoms": 4_096},
     {"l0": 64}, {"budget": "mean"}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_more_work_is_estimated_to_take_longer(changes):
    assert estimate(dataclasses.replace(CONFIG, **changes)).seconds > estimate(CONFIG).seconds


def test_memory_holds_at_least_the_model_and_the_matrices(tmp_path):
    found = estimate(CONFIG)
    weights, gram = 4 * 135_000_000, 2 * 2_048**2
    assert found.memory > weights + gram + 4 * 2_048 * 576
    assert found.memory < 8 * (weights + gram)
    more = dataclasses.replace(CONFIG, max_atoms=10_000)
    assert estimate(more).memory - found.memory >= 2 * (10_000**2 - 2_048**2)


def test_pursuits_that_refit_are_estimated_to_take_longer():
    matching, refit, orthogonal = (
        estimate(dataclasses.replace(CONFIG, pursuit=pursuit)).seconds
        for pursuit in ("matching", "refit", "orthogonal")
    )
    assert matching < refit < orthogonal


def test_choosing_among_more_atoms_takes_longer_even_where_nothing_is_explored():
    few, many = (
        estimate(dataclasses.replace(CONFIG, explored_tokens=0, max_atoms=atoms)).seconds
        for atoms in (2_048, 16_384)
    )
    assert many > few + 10  # 3 · 65,536 · 28,672 more centres · 128 components at 5e10 is 29 s


def test_the_sample_of_the_coverage_is_counted_for_each_layer():
    published = dataclasses.replace(CONFIG, selection="threshold", offset=None, pursuit=None)
    layers = dataclasses.replace(CONFIG, layers=(7, 15))
    sample = 65_536 * 576 * 4
    assert estimate(CONFIG).disk - estimate(published).disk == sample
    assert estimate(layers).disk == 2 * estimate(CONFIG).disk
    larger = dataclasses.replace(CONFIG, max_tokens=131_072)  # 65,536 of them are kept
    assert estimate(larger).disk == estimate(CONFIG).disk
    assert estimate(CONFIG).memory > estimate(published).memory + sample


@pytest.mark.parametrize("selection", ["threshold", "coverage"])
def test_a_training_needs_no_more_disk_than_estimated(
    tiny_model_folder, tiny_corpus_file, tmp_path, selection
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, selection=selection)
    kept = 600 + (1_000 if selection == "coverage" else 0)  # explored tokens and the sample
    activations = 3 * 4 * kept * 16  # layers, bytes, tokens, d_model
    assert estimate(config).disk >= activations
    trained(config, tmp_path)
    codes = sum(file.stat().st_size for file in tmp_path.glob("*/codes.parquet"))
    assert 0 < codes <= estimate(config).disk - activations


def test_more_to_evaluate_is_estimated_to_take_longer():
    """An early layer leaves more blocks to run for every L0, and so does a larger L0."""
    one = evaluation_seconds([(CONFIG, 7)])
    assert evaluation_seconds([(CONFIG, 7)], tokens=8_192) > one
    assert evaluation_seconds([(CONFIG, 7), (CONFIG, 7)]) > one
    assert evaluation_seconds([(CONFIG, 1)]) > one > evaluation_seconds([(CONFIG, 22)])
    assert evaluation_seconds([(dataclasses.replace(CONFIG, l0=64), 7)]) > one
    assert evaluation_seconds([]) < one


def test_an_evaluation_with_an_unknown_model_has_no_estimate():
    unknown = dataclasses.replace(CONFIG, model=ModelSpec("nobody/nothing"))
    assert evaluation_seconds([(CONFIG, 7), (unknown, 7)]) is None
