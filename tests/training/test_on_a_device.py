"""A whole training on a device: the CPU's runs, few waits, and nothing lost where memory is full.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

import functools
import itertools
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.errors import InputError, ItdaError
from itda_core.model.model import Model
from itda_core.runs import rows as rows_module
from itda_core.runs.rows import RowRoom
from itda_core.runs.run import NEAR_MISS_FILE, list_runs
from itda_core.selection import builders
from itda_core.training import encoding, held_out, trainer
from itda_core.training.capture import Capture
from itda_core.training.trainer import resume, train
from tests.support.pretend_device import PretendDevice
from tests.support.trained_runs import advance, assert_same_runs, tiny_config

WAYS = [
    {"selection": "threshold"},
    {"selection": "threshold", "pursuit": "orthogonal"},
    {"selection": "threshold", "pursuit": "refit"},
    {"selection": "coverage"},
    {"selection": "coverage", "pursuit": "matching", "offset": "zero"},
    {"selection": "coverage", "pursuit": "refit"},
    {"selection": "coverage", "budget": "mean"},
]
WAITS_A_WINDOW = 25
"""With three layers: what is usable, what is kept, and with the threshold one for each step"""

WAITS_A_BLOCK = 12
"""Which rows are finite, whether a pursuit's are, the sums of its measures, and what is written"""


@pytest.fixture
def tiny(tiny_model_folder, tiny_corpus_file):
    """A tiny configuration with some fields changed."""
    return lambda **changes: tiny_config(
        tiny_model_folder, tiny_corpus_file, **{"layers": (0, 2), **changes}
    )


def on_device(config, runs):
    """Train to the end on the device."""
    with PretendDevice() as seen:
        *_, last = train(config, runs, device="pretend")
    assert last.stage == "done"
    return seen


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """By selection: the folder of runs that a training on the device gives, made when it is first
    asked for."""

    @functools.cache
    def runs(selection):
        changes = {"layers": (0, 2), "selection": selection}
        folder = tmp_path_factory.mktemp(selection)
        on_device(tiny_config(tiny_model_folder, tiny_corpus_file, **changes), folder)
        return folder

    return runs


def on_cpu(config, runs):
    *_, last = train(config, runs, device="cpu")
    assert last.stage == "done"


def assert_same_to_rounding(folder, other):
    """The same runs, with the same sources and latents; numbers to rounding."""
    runs, others = list_runs(folder), list_runs(other)
    assert [run.run_id for run in runs] == [run.run_id for run in others]
    for run, expected in zip(runs, others, strict=True):
        dictionary, its = run.dictionary(), expected.dictionary()
        pd.testing.assert_frame_equal(dictionary.sources, its.sources)
        torch.testing.assert_close(dictionary.atoms, its.atoms)
        torch.testing.assert_close(dictionary.offset, its.offset)
        assert dictionary.pursuit == its.pursuit
        assert dictionary.min_projection == pytest.approx(its.min_projection, rel=1e-3)
        for file in ("codes.parquet", NEAR_MISS_FILE):
            assert_same_table(run.directory / file, expected.directory / file)
        prompts = [pd.read_parquet(one.directory / "prompts.parquet") for one in (run, expected)]
        pd.testing.assert_frame_equal(*prompts)
        for name, value in expected.metrics.items():
            if name != "seconds":
                assert run.metrics[name] == pytest.approx(value, rel=1e-3), name


def assert_same_table(path, other):
    """Codes by token and step, and near misses by token: 99 % of the latents are the same, since of
    near-equal correlations rounding decides, and coefficients of those to rounding."""
    keys = ["prompt_id", "position", *(["step"] if path.name == "codes.parquet" else [])]
    one, two = (pd.read_parquet(file).astype({"prompt_id": str}) for file in (path, other))
    both = one.merge(two, on=keys, how="outer", suffixes=("", "_of_cpu"))
    same = both["latent"] == both["latent_of_cpu"]
    assert same.mean() > 0.99
    found, expected = both[same]["coefficient"], both[same]["coefficient_of_cpu"]
    close = np.isclose(found, expected, rtol=1e-2, atol=1e-3 * expected.abs().max())
    assert close.mean() > 0.99


@pytest.mark.parametrize("changes", WAYS, ids=lambda way: " ".join(way.values()))
def test_a_training_gives_the_runs_of_the_cpu(tiny, tmp_path, changes):
    config = tiny(**changes)
    on_device(config, tmp_path / "device")
    on_cpu(config, tmp_path / "cpu")
    assert_same_to_rounding(tmp_path / "device", tmp_path / "cpu")
    assert {run.about["device"] for run in list_runs(tmp_path / "device")} == {"pretend"}


@pytest.mark.parametrize("selection", ["threshold", "coverage"])
def test_the_host_waits_a_few_times_a_window_however_many_steps_a_pursuit_has(
    tiny, tmp_path, selection, monkeypatch
):
    waits = {}
    window = Capture.next_part

    def counted(self):
        before = seen.waits.total()
        window(self)
        waits[l0].append(seen.waits.total() - before)

    monkeypatch.setattr(Capture, "next_part", counted)
    for l0 in (2, 12):
        waits[l0] = []
        config = tiny(layers=(0, 1, 2), selection=selection, l0=l0, max_atoms=900)  # never full
        with PretendDevice() as seen:
            list(train(config, tmp_path / str(l0), device="pretend"))
    assert len(waits[2]) > 10
    assert max(waits[2] + waits[12]) <= WAITS_A_WINDOW
    assert waits[12] == waits[2]


@pytest.mark.parametrize("pursuit", ["matching", "refit", "orthogonal"])
def test_a_block_that_is_encoded_waits_as_often_however_many_steps_a_pursuit_has(
    tiny, tmp_path, pursuit, monkeypatch
):
    waits, encode = [], encoding._encoded

    def counted(*arguments):
        before = seen.waits.total()
        block = encode(*arguments)
        waits.append(seen.waits.total() - before)
        return block

    monkeypatch.setattr(encoding, "_encoded", counted)
    for l0 in (3, 12):
        config = tiny(layers=(1,), selection="coverage", pursuit=pursuit, l0=l0)
        with PretendDevice() as seen:
            list(train(config, tmp_path / str(l0), device="pretend"))
    assert len(waits) == 2
    assert waits[0] == waits[1] <= WAITS_A_BLOCK


def test_rows_that_the_device_has_no_room_for_go_to_disk_and_the_runs_are_the_same(
    tiny, tmp_path, monkeypatch
):
    config = tiny(selection="coverage")
    on_device(config, tmp_path / "kept")
    kept = []
    take = RowRoom.take

    def watched(self, file):
        rows = take(self, file)
        kept.append(rows._rows is not None)
        return rows

    monkeypatch.setattr(RowRoom, "take", watched)
    one_of_four = 4 * 16 * 1_000 / rows_module.ROWS_SHARE
    for free in (0, one_of_four):
        kept.clear()
        monkeypatch.setattr(rows_module, "free_memory", lambda _device, free=free: free)
        on_device(config, tmp_path / str(free))
        assert kept.count(True) == (free > 0)
        assert_same_runs(tmp_path / str(free), tmp_path / "kept")


# Interruptions


@pytest.mark.parametrize("selection", ["threshold", "coverage"])
@pytest.mark.parametrize(
    ("stage", "number"), [("training", 1), ("training", 9), ("choosing", 1), ("encoding", 2)]
)
def test_a_closed_training_goes_on_to_the_same_runs(
    tiny, tmp_path, undisturbed, selection, stage, number
):
    config, expected = tiny(selection=selection), undisturbed(selection)
    with PretendDevice():
        steps = train(config, tmp_path / "closed", device="pretend")
        at = advance(steps, stage, number).training_id
        steps.close()
        *_, last = resume(at, tmp_path / "closed", device="pretend")
    assert last.stage == "done"
    assert_same_runs(tmp_path / "closed", expected)


def test_a_training_begun_on_one_device_goes_on_on_another(tiny, tmp_path):
    config = tiny(selection="coverage")
    on_cpu(config, tmp_path / "cpu")
    for first, second in itertools.permutations(["cpu", "pretend"]):
        runs = tmp_path / first
        with PretendDevice():
            steps = train(config, runs / "runs", device=first)
            at = advance(steps, "training", 6).training_id
            steps.close()
            *_, last = resume(at, runs / "runs", device=second)
        assert last.tokens == 1_000
        assert_same_to_rounding(runs / "runs", tmp_path / "cpu")


def test_what_a_kill_leaves_at_a_checkpoint_goes_on_to_the_same_runs(
    tiny, tmp_path, undisturbed, monkeypatch
):
    """The folder is copied while the training runs: what a kill at that moment would leave."""
    config = tiny(selection="coverage")
    expected_runs = undisturbed("coverage")
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    with PretendDevice():
        steps = train(config, tmp_path / "running", device="pretend")
        at = advance(steps, "training", 7).training_id
        shutil.copytree(tmp_path / "running", tmp_path / "left")
        steps.close()
        resumed = [
            progress.tokens
            for progress in resume(at, tmp_path / "left", device="pretend")
            if progress.stage == "training"
        ]
    assert resumed[0] > 300
    assert_same_runs(tmp_path / "left", expected_runs)


# A full memory


def full(*_arguments, **_options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_choice_that_memory_has_no_room_for_is_made_on_the_cpu_and_said(
    tiny, tmp_path, undisturbed, monkeypatch
):
    config = tiny(selection="coverage")
    expected_runs = undisturbed("coverage")
    choose = builders.choose

    def choose_on_cpu(x, *rest):
        return choose(x, *rest) if x.device.type == "cpu" else full()

    monkeypatch.setattr(builders, "choose", choose_on_cpu)
    with PretendDevice():
        *_, last = train(config, tmp_path / "runs", device="pretend")
    assert sum("chosen on the CPU" in note for note in last.notes) == 2
    assert_same_to_rounding(tmp_path / "runs", expected_runs)


def test_blocks_that_fill_memory_are_encoded_in_halves(tiny, tmp_path, undisturbed, monkeypatch):
    config = tiny(selection="coverage")
    expected_runs = undisturbed("coverage")
    encode, sizes = encoding.Dictionary.encode, []

    def encode_few(self, x, *rest, **options):
        sizes.append(len(x))
        return full() if len(x) > 200 else encode(self, x, *rest, **options)

    monkeypatch.setattr(held_out, "HELD_OUT_TOKENS", 100)
    monkeypatch.setattr(encoding.Dictionary, "encode", encode_few)
    on_device(config, tmp_path / "runs")
    assert sizes[:3] == [600, 300, 150]
    for run, expected in zip(list_runs(tmp_path / "runs"), list_runs(expected_runs), strict=True):
        for file in ("codes.parquet", NEAR_MISS_FILE):
            assert_same_table(run.directory / file, expected.directory / file)
        assert run.metrics["explored_tokens"] == 600
        fvu = expected.metrics["explored_fvu"]
        assert run.metrics["explored_fvu"] == pytest.approx(fvu, rel=1e-4)


def test_a_pass_without_room_loses_nothing_and_can_be_resumed(
    tiny, tmp_path, undisturbed, monkeypatch
):
    """The twelfth forward pass and all after it find no room; another time there is."""
    config = tiny(selection="coverage")
    expected_runs = undisturbed("coverage")
    load = trainer.load_model

    def loaded(spec, **place):
        model, passes = load(spec, **place), itertools.count()

        def fill(_module, _inputs):
            if next(passes) >= 6:
                full()

        model.blocks[0].register_forward_pre_hook(fill)
        return model

    with pytest.MonkeyPatch.context() as patch, PretendDevice():
        patch.setattr(trainer, "load_model", loaded)
        with pytest.raises(InputError, match=r"no room on the device pretend:0 .*shorter context"):
            for progress in train(config, tmp_path / "runs", device="pretend"):
                at, tokens = progress.training_id, progress.tokens
    with PretendDevice():
        steps = [(step.stage, step.tokens) for step in resume(at, tmp_path / "runs", "pretend")]
    assert next(count for stage, count in steps if stage == "training") > tokens > 0
    assert_same_runs(tmp_path / "runs", expected_runs)


def test_rows_of_a_window_without_room_lose_nothing_either(tiny, tmp_path, monkeypatch):
    """The rows of the seventh window find no room, which no halving of a pass can help."""
    config, calls = tiny(selection="coverage"), itertools.count()
    on_device(config, tmp_path / "undisturbed")
    capture = Model.capture
    with pytest.MonkeyPatch.context() as patch, PretendDevice():
        patch.setattr(
            Model, "capture", lambda *given: full() if next(calls) >= 6 else capture(*given)
        )
        with pytest.raises(ItdaError, match=r"Memory is full on the device pretend:0 .*resume"):
            for progress in train(config, tmp_path / "runs", device="pretend"):
                at, tokens = progress.training_id, progress.tokens
    with PretendDevice():
        steps = [(step.stage, step.tokens) for step in resume(at, tmp_path / "runs", "pretend")]
    assert next(count for stage, count in steps if stage == "training") > tokens > 0
    assert_same_runs(tmp_path / "runs", tmp_path / "undisturbed")


def test_held_out_rows_of_all_layers_wait_on_the_host(tiny, tmp_path, monkeypatch):
    """The device takes those of one layer while it is measured."""
    capture, found, measured = Model.capture, [], []
    encode = encoding.Dictionary.encode

    def seen(*given, **options):
        rows = capture(*given, **options)
        found.append({layer: (len(x), x.device.type) for layer, x in rows.items()})
        return rows

    def encoded(self, x, *rest, **options):
        measured.append((len(x), x.device.type))
        return encode(self, x, *rest, **options)

    monkeypatch.setattr(Model, "capture", seen)
    monkeypatch.setattr(encoding.Dictionary, "encode", encoded)
    on_device(tiny(selection="coverage"), tmp_path / "runs")
    held_out = found[-1]  # after all windows
    assert {layer: place for layer, (_, place) in held_out.items()} == {0: "cpu", 2: "cpu"}
    assert measured.count((held_out[0][0], "pretend")) == 2


def test_memory_that_is_full_elsewhere_ends_in_a_sentence(tiny, tmp_path, monkeypatch):
    config = tiny(selection="coverage")
    monkeypatch.setattr(builders.CoverageBuilder, "offer", full)
    with PretendDevice(), pytest.raises(ItdaError, match=r"Memory is full on the device pretend:0"):
        list(train(config, tmp_path, device="pretend"))
