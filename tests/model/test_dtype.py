"""The data type of the weights: what "auto" comes to, and that a training keeps to it."""

from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from itda_core.analysis.decomposition import decompose
from itda_core.config import ModelSpec, TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.evaluation.by_l0 import evaluate
from itda_core.files.json_files import write_json
from itda_core.model import data_types
from itda_core.model.loading import load_model
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.run import list_runs
from itda_core.store.store import Store
from itda_core.training.trainer import train
from tests.support.reference import unit_rows
from tests.support.trained_runs import advance, assert_same_runs, finish, tiny_config, trained

BOTH_WAYS = pytest.mark.parametrize(
    ("faster", "dtype", "other"),
    [(True, "bfloat16", "float32"), (False, "float32", "bfloat16")],
)


@pytest.fixture
def probe(monkeypatch):
    """Stands in for the probe of the machine: what it finds is set, and when it is asked kept."""
    told = SimpleNamespace(faster=True, asked=[])

    def ask(device):
        told.asked.append(device)
        return told.faster

    monkeypatch.setattr(data_types, "_is_bfloat16_faster", ask)
    return told


@pytest.fixture
def auto(tiny_model_folder, tiny_corpus_file):
    return tiny_config(tiny_model_folder, tiny_corpus_file, dtype="auto", layers=(0, 2))


# Loading


@BOTH_WAYS
def test_auto_is_what_the_probe_says_of_the_device(probe, tiny_model_folder, faster, dtype, other):
    probe.faster = faster
    name = str(tiny_model_folder)
    for model in (
        load_model(ModelSpec(name), device="cpu"),
        load_model(ModelSpec(name, dtype=other), dtype="auto", device="cpu"),
        load_model(name, dtype="auto", device="cpu"),
    ):
        assert model.dtype == dtype
        assert {weight.dtype for weight in model.module.parameters()} == {getattr(torch, dtype)}
    assert probe.asked == ["cpu"] * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_named_is_taken_and_the_probe_not_asked(probe, tiny_model_folder, dtype):
    probe.faster = dtype == "float32"
    name = str(tiny_model_folder)
    assert load_model(ModelSpec(name, dtype=dtype)).dtype == dtype
    assert load_model(name, dtype=dtype).dtype == dtype
    assert load_model(ModelSpec(name), dtype=dtype).dtype == dtype
    assert probe.asked == []


def test_a_model_loaded_by_its_name_alone_is_float32(probe, tiny_model_folder):
    assert load_model(str(tiny_model_folder)).dtype == "float32"
    assert probe.asked == []


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster"),
    [
        # Three of a small product, then five of the one that counts: the best of each.
        ([1, 1, 1, 9, 4, 5, 7, 8], [2, 2, 2, 3, 8, 9, 9, 9], True),  # 4 > 1.3 * 3
        ([1, 1, 1, 9, 3.8, 5, 7, 8], [2, 2, 2, 9, 9, 9, 9, 3], False),
        ([1, 1, 1, 4, 4, 4, 4, 4], [90, 9, 90, 3, 3, 3, 3, 3], True),  # compiled first
        ([9, 1, 9], [40, 30, 11], False),  # only imitated: the small one is enough to know
    ],
)
def test_bfloat16_has_to_be_worth_it_on_a_cpu(monkeypatch, float32, bfloat16, faster):
    """The clock is scripted: float32 and bfloat16 take turns, each between two looks at it."""
    times = [0.0]
    for seconds in chain.from_iterable(zip(float32, bfloat16, strict=True)):
        times += [times[-1], times[-1] + seconds]
    clock = iter(times[1:])
    monkeypatch.setattr(data_types, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert data_types._is_bfloat16_faster.__wrapped__("cpu") is faster
    assert next(clock, None) is None


def test_each_gpu_is_asked_for_its_own_compute_capability(monkeypatch):
    """Ampere (8.0) was the first with bfloat16; torch imitates it on those before."""
    capability = {"cuda": (9, 0), "cuda:0": (9, 0), "cuda:1": (7, 5), "cuda:2": (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability.get)
    faster = data_types._is_bfloat16_faster.__wrapped__
    assert [faster(name) for name in capability] == [True, True, False, True]


def test_a_device_without_such_products_takes_float32():
    assert data_types._is_bfloat16_faster.__wrapped__("mps") is False  # none is here


# Trainings


@BOTH_WAYS
def test_a_training_records_what_auto_came_to(probe, auto, tmp_path, faster, dtype, other):
    probe.faster = faster
    finished = trained(auto, tmp_path)[-1].finished
    for run in list_runs(tmp_path):
        assert run.config == auto.with_dtype(dtype)
        assert run.config.model.dtype == run.about["dtype"] == dtype
    named = trained(auto.with_dtype(dtype), tmp_path)
    assert named[-1].finished == finished  # it is the same training, so that nothing is made
    assert "training" not in {step.stage for step in named}
    assert not set(trained(auto.with_dtype(other), tmp_path)[-1].finished) & set(finished)


@BOTH_WAYS
def test_a_resume_keeps_to_the_recorded_dtype_when_the_probe_has_changed_its_mind(
    probe, auto, tmp_path, faster, dtype, other
):
    probe.faster = faster
    steps = train(auto, tmp_path / "runs")
    at = advance(steps, "training", 3).training_id
    steps.close()
    assert interrupted_trainings(tmp_path / "runs") == {at: auto.with_dtype(dtype)}
    probe.faster, probe.asked = not faster, []
    finish(at, tmp_path / "runs")
    assert probe.asked == []
    trained(auto.with_dtype(dtype), tmp_path / "uninterrupted")
    assert_same_runs(tmp_path / "runs", tmp_path / "uninterrupted")


@BOTH_WAYS
def test_the_same_training_is_recognised_when_the_probe_has_changed_its_mind(
    probe, auto, tmp_path, faster, dtype, other
):
    """As a job that is resumed, and a form that is sent twice: both say "auto" again."""
    probe.faster = faster
    steps = train(auto, tmp_path)
    at = advance(steps, "training", 3).training_id
    steps.close()
    probe.faster = not faster
    again = trained(auto, tmp_path)
    assert {step.training_id for step in again} == {"", at}
    assert [run.about["dtype"] for run in list_runs(tmp_path)] == [dtype, dtype]
    assert interrupted_trainings(tmp_path) == {}
    once_more = trained(auto, tmp_path)
    assert once_more[-1].finished == again[-1].finished
    assert "training" not in {step.stage for step in once_more}


def test_another_training_has_no_say_in_what_auto_comes_to(probe, auto, tmp_path):
    trained(tiny_config(auto.model.name, auto.corpus.name, layers=(0, 2), seed=1), tmp_path)
    trained(auto, tmp_path)
    found = {(run.config.seed, run.about["dtype"]) for run in list_runs(tmp_path)}
    assert found == {(1, "float32"), (0, "bfloat16")}


def test_the_choice_of_an_interrupted_training_that_cannot_be_read_is_not_asked_for(
    probe, auto, tmp_path
):
    (tmp_path / ".tiny-00000000").mkdir()
    write_json(tmp_path / ".tiny-00000000" / "config.json", {"version": 99})
    assert trained(auto, tmp_path)[-1].stage == "done"
    assert {run.about["dtype"] for run in list_runs(tmp_path)} == {"bfloat16"}


def test_a_configuration_with_a_dtype_differs_in_nothing_else(auto):
    named = auto.with_dtype("bfloat16")
    assert named.model == ModelSpec(auto.model.name, dtype="bfloat16")
    assert {**named.to_dict(), "model": None} == {**auto.to_dict(), "model": None}
    assert TrainConfig.from_dict(named.to_dict()) == named
    assert named.with_dtype("bfloat16") == named


# bfloat16 from end to end


def test_a_training_in_bfloat16_is_written_imported_measured_and_decomposed(
    auto, tmp_path, tiny_model
):
    config = auto.with_dtype("bfloat16")
    trained(config, tmp_path / "runs")
    store = Store(tmp_path / "explorer.duckdb")
    for run in list_runs(tmp_path / "runs"):
        assert store.import_run(run)
        dictionary = run.dictionary()
        assert dictionary.atoms.dtype == torch.float32
        # The atoms are the activations that the float32 model has at the same tokens, nearly.
        texts = {p.prompt_id: p.text for p in load_corpus(config.corpus).training(config.seed)}
        for row, atom in zip(dictionary.sources.itertuples(), dictionary.atoms, strict=True):
            tokens = tiny_model.tokenize([texts[row.prompt_id]], config.context_length)
            expected = tiny_model.capture(tokens, [run.layer])[run.layer][row.position - 1]
            assert float(atom.double().numpy() @ unit_rows(expected[None])[0]) > 0.99

        model = load_model(run.config.model)
        assert model.dtype == "bfloat16"
        held_out = load_corpus(config.corpus).held_out()
        *_, result = evaluate(dictionary, model, held_out, run.config)
        assert result.tokens == run.metrics["held_out_tokens"]
        for measures in result.by_l0():
            assert 0 < measures["fvu"] < 1
            assert measures["kl"] > 0
        # Nearly: the shapes of the forward passes differ, and bfloat16 has three digits.
        assert result.by_l0()[-1]["fvu"] == pytest.approx(run.metrics["fvu"], rel=0.05)
        tokens = decompose(dictionary, model, "the treaty with Spain", run.config).to_records()
        assert all(token["terms"] for token in tokens)
    table = store.runs.table()
    assert table["dtype"].tolist() == ["bfloat16"] * 2
    assert table["explored_tokens"].tolist() == [600] * 2
    store.close()
