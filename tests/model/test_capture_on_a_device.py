"""Capture on a device: the CPU's rows, nothing that waits, and smaller passes where memory is full.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

from contextlib import contextmanager

import pytest
import torch

from itda_core.errors import InputError
from itda_core.model import forward_batches
from itda_core.model import model as model_module
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from tests.support.pretend_device import PretendDevice

LAYERS = [0, 2]


@pytest.fixture(scope="module")
def on_device(tiny_model_folder):
    """The tiny Llama on the pretend device, proved there."""
    with PretendDevice():
        return load_model(str(tiny_model_folder), device="pretend")


@pytest.fixture
def own_model(tiny_model):
    """The tiny Llama as an object of this test's own: what memory has room for, it remembers."""
    model = Model(
        "tiny", tiny_model.module, tiny_model.tokenizer, tiny_model.digest, "model.layers"
    )
    model.abilities = tiny_model.abilities
    return model


@pytest.fixture
def full_above(own_model):
    """Fills memory in passes of more than so many tokens; gives the passes that were tried."""
    tried, handles = [], []

    def limit(n_tokens):
        def refuse(_module, inputs):
            texts, width = inputs[0].shape[:2]
            tried.append((texts, width))
            if texts * width > n_tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        handles.append(own_model.blocks[0].register_forward_pre_hook(refuse))
        return tried

    yield limit
    for handle in handles:
        handle.remove()


def test_rows_stay_on_the_device_and_are_the_cpus(tiny_model, on_device, tiny_texts):
    expected = tiny_model.capture(tiny_model.tokenize(tiny_texts), LAYERS)
    with PretendDevice() as seen:
        rows = on_device.capture(on_device.tokenize(tiny_texts), LAYERS)
        assert not seen.waits, "a pass waits for the one before"
        assert {str(x.device) for x in rows.values()} == {"pretend:0"}
        for layer in LAYERS:
            assert rows[layer].dtype == torch.float32
            torch.testing.assert_close(rows[layer].cpu(), expected[layer])
    assert rows.prompts.tolist() == expected.prompts.tolist()
    assert rows.positions.tolist() == expected.positions.tolist()


def test_rows_come_to_the_host_where_that_is_asked_for(tiny_model, on_device, tiny_texts):
    expected = tiny_model.capture(tiny_model.tokenize(tiny_texts), LAYERS)
    with PretendDevice():
        rows = on_device.capture(on_device.tokenize(tiny_texts), LAYERS, to="cpu")
    for layer in LAYERS:
        assert rows[layer].device.type == "cpu"
        torch.testing.assert_close(rows[layer], expected[layer])


def test_rows_of_a_model_in_half_precision_are_float32(tiny_model_folder, tiny_texts):
    with PretendDevice():
        half = load_model(str(tiny_model_folder), dtype="bfloat16", device="pretend")
        rows = half.capture(half.tokenize(tiny_texts[:3]), [1])
    assert half.dtype == "bfloat16"
    assert rows[1].dtype == torch.float32


def test_no_cache_of_keys_and_values_is_filled(tiny_model, monkeypatch):
    base, caches = tiny_model.module.base_model, []
    forward = base.layers[0].forward

    def spy(*inputs, **options):
        caches.append(options.get("past_key_values"))
        return forward(*inputs, **options)

    monkeypatch.setattr(base.layers[0], "forward", spy)
    tiny_model.capture(tiny_model.tokenize(["the treaty of peace"]), [0])
    assert caches == [None]


def test_a_pass_that_fills_memory_is_made_in_halves(
    tiny_model, own_model, full_above, tiny_texts, monkeypatch
):
    texts = tiny_texts[:40]
    expected = tiny_model.capture(tiny_model.tokenize(texts), LAYERS)
    tried = full_above(200)
    rows = own_model.capture(own_model.tokenize(texts), LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(rows[layer], expected[layer])
    assert rows.positions.tolist() == expected.positions.tolist()
    too_large = [size for size in tried if size[0] * size[1] > 200]
    assert 0 < len(too_large) < 5

    # What had room is remembered: the next windows try nothing larger.
    tried.clear()
    again = own_model.capture(own_model.tokenize(texts), LAYERS)
    torch.testing.assert_close(again[2], expected[2])
    assert max(texts * width for texts, width in tried) <= 200


def test_more_is_tried_again_once_many_passes_had_room(own_model, tiny_texts, monkeypatch):
    """What filled memory, another program's say, is gone: passes are as large as at first."""
    monkeypatch.setattr(forward_batches, "_TRY_MORE_AFTER", 3)
    room, tried, tokens = [200], [], own_model.tokenize(tiny_texts[:40])

    def refuse(_module, inputs):
        tried.append(inputs[0].shape[0] * inputs[0].shape[1])
        if tried[-1] > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = own_model.blocks[0].register_forward_pre_hook(refuse)
    own_model.capture(tokens, LAYERS)
    at_first = tried[0]
    room[0] = 10**9
    for _ in range(20):
        tried.clear()
        own_model.capture(tokens, LAYERS)
    handle.remove()
    assert tried[0] == at_first > 200


def test_passes_run_where_the_model_is_whatever_the_thread_works_on(own_model, monkeypatch):
    """CUDA's current device is each thread's own; sessions are threads."""
    places, during = [], []

    @contextmanager
    def working_on(device):
        places.append(device)
        try:
            yield
        finally:
            places.pop()

    monkeypatch.setattr(model_module, "working_on", working_on)
    handle = own_model.blocks[0].register_forward_pre_hook(lambda *_: during.extend(places))
    tokens = own_model.tokenize(["the treaty of peace"])
    own_model.capture(tokens, [0])
    own_model.logits(tokens)
    handle.remove()
    assert during == [own_model.device, own_model.device]


def test_a_text_that_memory_has_no_room_for_is_said_with_the_remedy(own_model, full_above):
    full_above(3)
    tokens = own_model.tokenize(["the treaty of peace was signed", "peace"])
    with pytest.raises(InputError, match=r"no room .* one text of .* shorter context, .* bfloat16"):
        own_model.capture(tokens, [1])
    full_above(10**9)


def test_other_errors_are_not_taken_for_a_full_memory(own_model, monkeypatch):
    calls = []

    def fail(_module, _inputs):
        calls.append(1)
        raise RuntimeError("shapes cannot be multiplied")

    handle = own_model.blocks[0].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="multiplied"):
        own_model.capture(own_model.tokenize(["the treaty", "of peace"]), [1])
    handle.remove()
    assert len(calls) == 1
