"""The estimate before a training: there without loading anything, and of the right size."""

import dataclasses

import pytest
import torch

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.devices import Device
from itda_core.errors import InputError
from itda_core.jobs import estimate as estimate_module
from itda_core.jobs import measure_seconds, operations
from itda_core.jobs import product_speed as speed_module
from itda_core.jobs.estimate import estimate
from itda_core.jobs.measure_seconds import (
    evaluation_seconds,
    latent_comparison_seconds,
    probing_seconds,
)
from itda_core.model.data_types import resolved_dtype
from itda_core.model.model_info import model_shape
from tests.support.trained_runs import tiny_config, trained

CONFIG = TrainConfig(ModelSpec("smollm2-135m"), CorpusSpec("sotu"), (7,))


@pytest.fixture(autouse=True)
def steady_speed(monkeypatch):
    speeds = {torch.float32: 5e10, torch.bfloat16: 4e11}
    monkeypatch.setattr(
        operations, "product_speed", lambda _device, dtype=torch.float32: speeds[dtype]
    )


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


def test_texts_that_have_fewer_tokens_are_estimated_by_those(tiny_corpus_file):
    there = tiny_corpus_file.stat().st_size
    model, corpus = ModelSpec("smollm2-135m"), CorpusSpec(str(tiny_corpus_file))
    small, all_of_it, more = (
        estimate(TrainConfig(model, corpus, (7,), max_tokens=count, max_atoms=100))
        for count in (there // 10, there, 100 * there)
    )
    assert small.seconds < all_of_it.seconds == more.seconds
    assert small.disk < all_of_it.disk == more.disk
    # All of the built-in corpus is some 2 million tokens.
    plenty = [estimate(dataclasses.replace(CONFIG, max_tokens=n)) for n in (10**6, 10**7, 10**8)]
    assert plenty[0].seconds < plenty[1].seconds == plenty[2].seconds


def test_more_to_evaluate_is_estimated_to_take_longer():
    """An early layer leaves more blocks to run for every L0, and so does a larger L0."""
    one = evaluation_seconds([(CONFIG, 7)])
    assert evaluation_seconds([(CONFIG, 7)], tokens=8_192) > one
    assert evaluation_seconds([(CONFIG, 7), (CONFIG, 7)]) > one
    assert evaluation_seconds([(CONFIG, 1)]) > one > evaluation_seconds([(CONFIG, 22)])
    assert evaluation_seconds([(dataclasses.replace(CONFIG, l0=64), 7)]) > one
    assert evaluation_seconds([]) < one
    assert evaluation_seconds([(CONFIG, 7)], quick=True) < one


def test_what_is_put_in_within_a_block_takes_all_blocks_for_every_l0():
    """The stream before a block is what the one before gave, and needs those from there on."""

    def seconds(layer, site):
        return evaluation_seconds([(dataclasses.replace(CONFIG, site=site), layer)])

    one_block = (seconds(22, "mlp_out") - seconds(7, "mlp_out")) / 15  # for the activations alone
    assert one_block > 0
    assert seconds(8, "resid_pre") - seconds(7, "resid_post") == pytest.approx(one_block)
    passes = (seconds(7, "mlp_out") - seconds(7, "resid_post")) / (8 * one_block)
    assert passes == pytest.approx(8)  # L0 1, 2, 4, 8, 16 and 32, as it is, and zeroed


def test_an_evaluation_of_a_model_that_is_swept_reads_it_once_for_each_layer(monkeypatch):
    monkeypatch.setenv("ITDA_MEMORY", "100MB")
    monkeypatch.setattr(measure_seconds, "reading_speed", lambda _folder: (1e6, True))
    config = dataclasses.replace(CONFIG, model=ModelSpec("smollm2-135m", dtype="float32"))
    numbers = 30 * 576 * (4 * 576 + 3 * 1_536) + 49_152 * 576
    start, one = evaluation_seconds([]), evaluation_seconds([(config, 7)])
    assert one - start == pytest.approx(4 * numbers / 1e6)
    assert evaluation_seconds([(config, 7), (config, 9)]) - start == pytest.approx(
        2 * (one - start)
    )
    assert evaluation_seconds([(config, 7), (config, 7)]) - one < one - start


def test_within_a_block_a_swept_model_is_read_once_more_up_to_there(monkeypatch):
    monkeypatch.setenv("ITDA_MEMORY", "100MB")
    monkeypatch.setattr(measure_seconds, "reading_speed", lambda _folder: (1e6, True))
    model = ModelSpec("smollm2-135m", dtype="float32")
    block, outside = 576 * (4 * 576 + 3 * 1_536), 49_152 * 576

    def numbers(site):
        config = dataclasses.replace(CONFIG, model=model, site=site)
        return (evaluation_seconds([(config, 7)]) - evaluation_seconds([])) * 1e6 / 4

    # Blocks 0 to 7 for the activations, then those that run with others in their place.
    assert numbers("resid_post") == pytest.approx((8 + 22) * block + outside)
    assert numbers("resid_pre") == pytest.approx((8 + 23) * block + outside)
    assert numbers("mlp_out") == pytest.approx((8 + 30) * block + 2 * outside)


def test_an_evaluation_with_an_unknown_model_has_no_estimate():
    unknown = dataclasses.replace(CONFIG, model=ModelSpec("nobody/nothing"))
    assert evaluation_seconds([(CONFIG, 7), (unknown, 7)]) is None


# A model that is read block by block


def test_a_model_that_fits_is_estimated_as_before_whatever_is_said():
    assert estimate(CONFIG, "cpu", 2**40) == estimate(CONFIG, "cpu")
    assert estimate(CONFIG, "cpu").sweep is None
    assert estimate(CONFIG, "cpu").model_bytes > 2 * 134_515_008


def test_of_a_larger_one_it_is_said_what_is_read_and_for_how_long(monkeypatch):
    guesses = []
    for about in ((1e6, True), (1e12, False)):
        monkeypatch.setattr(estimate_module, "reading_speed", lambda _folder, about=about: about)
        guesses.append(estimate(CONFIG, "cpu", 100_000_000))
    slow, fast = guesses
    loaded = estimate(CONFIG, "cpu")
    blocks = 8 * 576 * (4 * 576 + 3 * 1_536)  # up to layer 7
    item = slow.sweep.held // (2 * 576 * (4 * 576 + 3 * 1_536) + 49_152 * 576)
    assert item in (2, 4)
    assert slow.sweep.read == fast.sweep.read == item * (blocks + 49_152 * 576)
    assert slow.sweep.reading == pytest.approx(slow.sweep.read / 1e6)
    assert (slow.sweep.is_measured, fast.sweep.is_measured) == (True, False)
    # Reading and computing are at the same time, so that the longer one counts.
    assert slow.seconds - fast.seconds == pytest.approx(slow.sweep.reading - fast.sweep.computing)
    assert slow.sweep.hidden == item * 576 * int(1.1 * 65_536)
    # In the file, and as they are kept of one block while those of the next are written.
    assert slow.disk - loaded.disk == 3 * slow.sweep.hidden
    assert slow.memory < loaded.memory


# On a GPU


GIB = 2**30


@pytest.fixture
def gpu(monkeypatch):
    """cuda:0 has bfloat16, cuda:1 has not, and cuda:2 is slow in 16 bits."""
    capability = {"cuda:0": (9, 0), "cuda:1": (7, 5), "cuda:2": (6, 1)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda name: capability[str(name)])
    here = lambda name: Device(name, "Fake GPU", 140 * GIB, 139 * GIB)  # noqa: E731
    monkeypatch.setattr("itda_core.devices.described", here)


def test_what_a_gpu_holds_is_told_apart_from_main_memory(gpu):
    here, there = estimate(CONFIG, "cpu"), estimate(CONFIG, "cuda:0")
    assert here.on_device is None
    assert there.memory < here.memory
    assert there.disk == here.disk
    needed = there.on_device
    # 30 blocks of 576 · (4 · 576 + 3 · 1,536) weights, the embedding twice, bfloat16
    assert needed.weights == 2 * (30 * 576 * 6_912 + 2 * 49_152 * 576)
    assert needed.kept == 4 * 576 * (65_536 + 65_536)
    assert estimate(CONFIG, "cuda:1").on_device.weights == 2 * needed.weights  # float32
    layers = dataclasses.replace(CONFIG, layers=(7, 15, 22))
    assert estimate(layers, "cuda:0").on_device.kept == 3 * needed.kept


def test_a_gpu_is_timed_in_the_data_type_that_it_computes_in(gpu):
    seconds = estimate(CONFIG, "cuda:1").seconds - estimate(CONFIG, "cuda:0").seconds
    forward = 2 * 576 * 6_912 * 8 * 65_536  # the blocks up to layer 7
    assert seconds == pytest.approx(forward / 0.45 * (1 / 5e10 - 1 / 4e11), rel=1e-6)
    for guess in (
        lambda device: evaluation_seconds([(CONFIG, 7)], device=device),
        lambda device: probing_seconds(CONFIG, 7, 2_048, device),
    ):
        assert guess("cuda:1") > guess("cuda:0")


def test_a_gram_matrix_is_taken_only_where_a_quarter_of_what_is_free_holds_it(gpu):
    large = dataclasses.replace(CONFIG, max_atoms=32_768, pursuit="matching")  # 4 GiB
    needed = estimate(large, "cuda:2").on_device
    room = needed.weights + 16 * GIB  # the weights are there first
    assert not needed.has_gram(room - 1)
    assert needed.has_gram(room)
    assert needed.least(room) - needed.least(room - 1) == 4 * GIB
    assert needed.fits(room)
    assert not needed.fits(GIB)


@pytest.mark.parametrize(
    ("pursuit", "device", "is_counted"),
    [
        # A step by products: 2 · 576 / 150 + 6 = 14 bytes in 16 bits, 2 · 576 / 30 + 16 = 54 in 32;
        # by a Gram matrix 32 of matching pursuit, 4 · (32 / 2 + 7) = 92 of the orthogonal one.
        ("orthogonal", "cuda:0", False),
        ("matching", "cuda:0", False),
        ("orthogonal", "cuda:2", False),
        ("matching", "cuda:2", True),
    ],
)
def test_a_gram_matrix_that_no_pursuit_takes_is_not_counted(gpu, pursuit, device, is_counted):
    config = dataclasses.replace(CONFIG, pursuit=pursuit)
    needed = estimate(config, device).on_device
    assert needed.gram == (4 * 2_048**2 if is_counted else 0)  # float32


def test_layers_that_grow_together_hold_their_gram_matrices_together(gpu):
    published = dataclasses.replace(
        CONFIG, layers=(7, 15), selection="threshold", offset=None, pursuit=None
    )
    assert estimate(published, "cuda:2").on_device.gram == 2 * 4 * 2_048**2


def test_a_full_device_is_probed_with_less_and_refused_where_nothing_goes(monkeypatch):
    monkeypatch.undo()  # the probe itself
    monkeypatch.setattr(speed_module, "_DRAWS", {})
    sizes = []

    def seconds(size, _device, _dtype):
        sizes.append(size)
        if size > 1_024:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 0.5

    monkeypatch.setattr(speed_module, "_product_seconds", seconds)
    assert speed_module.product_speed("cuda:0") == 2 * 1_024**3 / 0.5
    assert sizes == [4_096, 2_048, 1_024]

    def refuse(*_about):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(speed_module, "_product_seconds", refuse)
    monkeypatch.setattr(speed_module, "_DRAWS", {})
    with pytest.raises(InputError, match=r"The memory of cuda:0 is full\. End"):
        speed_module.product_speed("cuda:0")


def test_the_median_of_draws_counts_and_one_bad_moment_does_not(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(speed_module, "_DRAWS", {})
    monkeypatch.setattr(speed_module, "_DRAWN_AFTER_SECONDS", -1.0)
    took = iter([1.0, 4.0, 1.0])
    monkeypatch.setattr(speed_module, "_product_seconds", lambda *_about: next(took))
    work = 2 * 1_024**3
    assert [speed_module.product_speed("cpu") for _ in range(3)] == [work, 0.625 * work, work]
    monkeypatch.setattr(speed_module, "_DRAWN_AFTER_SECONDS", 60.0)
    assert speed_module.product_speed("cpu") == work  # none is drawn


def test_latents_are_compared_by_one_pass_for_each_model():
    one, other = (CONFIG, 7, 2_048), (dataclasses.replace(CONFIG, layers=(15,)), 15, 2_048)
    speed = 5e10
    blocks = 2 * model_shape(CONFIG.model).block_weights * 10_000 / (speed * 0.45)
    row = 2 * 2_048 * (576 + 32 / 0.15)  # of a pursuit, as for one row of a training
    pursuit = 3.7 * row * 10_000 / speed
    found = latent_comparison_seconds([one, other])
    assert found == pytest.approx(12 + 16 * blocks / gain() + 2 * pursuit)
    built_in = dataclasses.replace(CONFIG, model=ModelSpec("tiny-6x128-0"))
    more = latent_comparison_seconds([one, (built_in, 2, 512)])
    assert 12 < more < found
    unknown = dataclasses.replace(CONFIG, model=ModelSpec("nobody/nothing"))
    assert latent_comparison_seconds([one, (unknown, 7, 2_048)]) is None


def gain():
    """How much faster a forward pass is here in the model's data type."""
    return 2.0 if resolved_dtype("auto", "cpu") is torch.bfloat16 else 1.0
