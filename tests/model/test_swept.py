"""A model that does not fit into memory is read block by block, and gives what it gives in memory:
to the last bit, in float32 on a CPU."""

import errno
import itertools
import os
import tempfile
import threading

import pytest
import torch
from accelerate import init_empty_weights

from itda_core.config import ModelSpec
from itda_core.errors import InputError, ItdaError, ModelError
from itda_core.model import loading, proved, swept
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.model.process_lock import PROCESS_LOCK
from itda_core.model.steps import Steps
from itda_core.model.swept import SweptModel
from itda_core.model.weight_files import StoredTensor
from tests.support.swept_models import (
    both_kinds,
    bytes_on_disk,
    rewrite_config,
    too_little,
    values_of,
)
from tests.support.tiny_models import FAMILIES, TEXTS, save_tiny_model
from tools.model_types.listing import find_types
from tools.model_types.tiny import save_tiny

OTHERS = ("mixtral.causal", "qwen2_moe.causal", "mamba.causal", "jamba.causal", "falcon.causal")
"""Experts that are fused while they load, blocks of two kinds, blocks without attention"""


@pytest.fixture(scope="module", params=[*FAMILIES, *OTHERS, "t5gemma.seq2seq"])
def kinds(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param in FAMILIES:
        save_tiny_model(folder, request.param)
        return both_kinds(folder)
    [one] = find_types(request.param)
    save_tiny(one, folder)
    return both_kinds(folder, ":encoder" if one.kind == "seq2seq" else "")


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "llama", n_layers=5)


@pytest.fixture(scope="module")
def llama(llama_folder):
    return both_kinds(llama_folder)


@pytest.fixture
def batches(llama):
    return [llama[0].tokenize(texts) for texts in (TEXTS[:2], [""], TEXTS[2:], [""])]


# What it gives


def test_every_layer_of_every_family_is_the_resident_ones(kinds):
    resident, model = kinds
    tokens = resident.tokenize(TEXTS)
    layers = range(resident.n_layers)
    expected, found = (one.capture(tokens, layers) for one in (resident, model))
    assert (found.prompts == expected.prompts).all()
    assert (found.positions == expected.positions).all()
    for layer in layers:
        assert torch.equal(found[layer], expected[layer]), layer


def test_logits_of_every_family_are_the_resident_ones(kinds):
    resident, model = kinds
    assert model.is_causal == resident.is_causal
    if not resident.is_causal:
        with pytest.raises(ModelError, match="predicts no next token"):
            model.logits(resident.tokenize(TEXTS))
        return
    tokens = resident.tokenize(TEXTS)
    assert torch.equal(model.logits(tokens), resident.logits(tokens))


@pytest.mark.parametrize("skip_first", [True, False])
def test_many_batches_come_layer_by_layer_in_their_order(llama, batches, skip_first):
    resident, model = llama
    order = []
    for number, rows in values_of(model.capture_each(batches, [3, 1], skip_first)):
        [(layer, x)] = rows.items()
        expected = resident.capture(batches[number], [layer], skip_first)
        assert torch.equal(x, expected[layer])
        assert (rows.prompts == expected.prompts).all()
        order.append((layer, number))
    assert order == [(layer, number) for layer in (1, 3) for number in range(4)]


def test_batches_without_a_token_give_no_rows(llama):
    _, model = llama
    empty = model.tokenize(["", ""])
    found = values_of(model.capture_each([empty, empty], [2, 0]))
    assert [(number, [*rows], len(rows.prompts)) for number, rows in found] == [
        (number, [layer], 0) for layer in (0, 2) for number in (0, 1)
    ]


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_an_evaluation_is_two_sweeps_over_disjoint_blocks(llama, batches, layer):
    resident, model = llama
    some = [batches[0], batches[2]]
    hidden = values_of(model.hidden_each(some, layer))
    for number, found in hidden:
        assert torch.equal(found, resident.hidden(some[number], layer))
    streams = [(some[number], 1.5 * found) for number, found in hidden]
    logits = values_of(model.logits_after_each(layer, iter(streams)))
    assert [number for number, _ in logits] == [0, 1]
    for number, found in logits:
        assert torch.equal(found, resident.logits_after(some[number], layer, streams[number][1]))


def test_a_vector_is_unembedded_as_the_resident_model_does(llama):
    resident, model = llama
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    assert torch.equal(model.unembed(vectors), resident.unembed(vectors))
    assert model.unembed(vectors[:0]).shape == resident.unembed(vectors[:0]).shape


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_data_types_give_what_the_resident_model_gives(llama_folder, dtype):
    resident = load_model(str(llama_folder), dtype, "cpu")
    half = sum(bytes_on_disk(llama_folder).values()) // 2
    model = load_model(str(llama_folder), dtype, "cpu", memory=half - 1)
    assert model.is_swept
    assert model.dtype == dtype
    tokens = resident.tokenize(TEXTS)
    expected, found = (one.capture(tokens, [1, 4]) for one in (resident, model))
    for layer in (1, 4):
        assert torch.equal(found[layer], expected[layer])


def test_hidden_states_without_room_in_memory_lie_in_a_file(llama, batches, monkeypatch):
    resident, model = llama
    monkeypatch.setattr(model, "memory", 0)
    found = values_of(model.capture_each(batches, [4]))
    for number, rows in found:
        assert torch.equal(rows[4], resident.capture(batches[number], [4])[4])


def test_full_memory_halves_a_pass(llama, monkeypatch):
    resident, model = llama
    tokens = resident.tokenize(TEXTS)
    whole = model._hidden

    def hidden(some, *where):
        if len(some) > 1:
            raise MemoryError
        return whole(some, *where)

    monkeypatch.setattr(model, "_hidden", hidden)
    expected = resident.capture(tokens, [3])[3]
    torch.testing.assert_close(model.capture(tokens, [3])[3], expected, rtol=1e-4, atol=1e-4)


# What is read, and what stays


def reads_of(monkeypatch):
    """Names of files, places and sizes of every tensor that is read from here on."""
    found, read = [], StoredTensor.read

    def counted(self, *where):
        found.append(self)
        return read(self, *where)

    monkeypatch.setattr(StoredTensor, "read", counted)
    return found


def test_every_weight_of_the_blocks_is_read_once_for_all_batches(
    llama, llama_folder, batches, monkeypatch
):
    _, model = llama
    read = reads_of(monkeypatch)
    list(model.capture_each(batches, [0, 3]))
    sizes = bytes_on_disk(llama_folder)
    needed = {
        name: size
        for name, size in sizes.items()
        if "embed_tokens" in name or any(f"layers.{block}." in name for block in range(4))
    }
    assert len({(one.path, one.start) for one in read}) == len(read) == len(needed)
    assert sum(one.n_bytes for one in read) == sum(needed.values())


def test_nothing_but_what_lies_outside_the_blocks_stays_in_memory(llama):
    _, model = llama
    held = [name for name, weight in model.module.named_parameters() if not weight.is_meta]
    assert held == ["model.norm.weight"]


def test_no_more_than_one_block_is_in_place_while_it_computes(llama, batches):
    _, model = llama
    for step in model.capture_each(batches, [4]):
        held = {
            number
            for number, block in enumerate(model.blocks)
            if not next(block.parameters()).is_meta
        }
        assert len(held) <= 1, step


def test_an_abandoned_sweep_lets_go_of_its_weights_and_leaves_no_thread(llama, batches):
    resident, model = llama
    steps = model.capture_each(batches, [4])
    next(steps)
    steps.close()
    held = [name for name, weight in model.module.named_parameters() if not weight.is_meta]
    assert held == ["model.norm.weight"]
    assert not [one for one in threading.enumerate() if one.name.startswith("weights")]
    tokens = batches[0]
    assert torch.equal(model.capture(tokens, [4])[4], resident.capture(tokens, [4])[4])


def test_a_second_sweep_within_one_is_refused(llama, batches):
    _, model = llama
    steps = model.hidden_each(batches[:1], 3)
    next(steps)
    with pytest.raises(ModelError, match=r"Two sweeps of .* at once"):
        model.capture(batches[0], [0])
    steps.close()


def test_weights_are_put_in_place_when_no_other_session_loads_a_model(llama, batches):
    """Which makes every new parameter of the process one without memory meanwhile."""
    resident, model = llama
    found = []
    sweep = threading.Thread(target=lambda: found.append(model.capture(batches[0], [4])))
    with PROCESS_LOCK, init_empty_weights():
        sweep.start()
        sweep.join(0.3)
        assert sweep.is_alive()
    sweep.join(60)
    assert torch.equal(found[0][4], resident.capture(batches[0], [4])[4])


def test_what_was_half_put_in_place_is_let_go_of(llama, batches, monkeypatch):
    resident, model = llama
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(model._weights, "_share", lambda _filled: 1 / 0)
        model.capture(batches[0], [4])
    held = [name for name, weight in model.module.named_parameters() if not weight.is_meta]
    assert held == ["model.norm.weight"]
    found = model.capture(batches[0], [4])[4]
    assert torch.equal(found, resident.capture(batches[0], [4])[4])


def test_what_the_disk_refuses_is_told_in_a_sentence(tmp_path, monkeypatch):
    """No room for hidden states, then a file of weights that has gone."""
    _, model = both_kinds(save_tiny_model(tmp_path))
    tokens = model.tokenize(TEXTS)

    def full(*_where, **_how):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk, pytest.raises(ItdaError, match="no space left on the disk"):
        disk.setattr(model, "memory", 0)
        disk.setattr(tempfile, "TemporaryFile", full)
        model.capture(tokens, [3])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"safetensors can't be read any more .No such file"):
        model.capture(tokens, [3])


def test_what_is_wrong_with_the_disk_is_not_remembered_of_the_model(tmp_path, monkeypatch):
    memory, file = too_little(save_tiny_model(tmp_path, n_layers=5)), tmp_path / "model.safetensors"
    prove, content, about = proved.prove_swept, file.read_bytes(), file.stat()

    def interrupted(*arguments):
        file.write_bytes(content[:-1] + b"x")
        return prove(*arguments)

    with monkeypatch.context() as spoilt, pytest.raises(ModelError, match="has changed since"):
        spoilt.setattr(proved, "prove_swept", interrupted)
        load_model(str(tmp_path), device="cpu", memory=memory)
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert load_model(str(tmp_path), device="cpu", memory=memory).is_swept


# What is swept, and what is refused


def test_a_model_that_fits_is_loaded_as_a_whole(llama_folder):
    size = sum(bytes_on_disk(llama_folder).values())
    kinds = {
        memory: type(load_model(str(llama_folder), device="cpu", memory=memory))
        for memory in (size, size - 1, None)
    }
    assert kinds == {size: Model, size - 1: SweptModel, None: Model}


def test_a_model_that_does_not_fit_is_tried_block_by_block_too(llama_folder, monkeypatch):
    monkeypatch.setattr(loading, "from_pretrained", None)  # would load all of it
    spec = ModelSpec(str(llama_folder), dtype="float32")
    tried = loading.try_model(spec, "cpu", too_little(llama_folder))
    assert tried.is_swept
    assert not tried.abilities.capture
    assert not tried.sites.why_not("mlp_out")


def test_what_it_proved_is_remembered(llama_folder, monkeypatch):
    memory = too_little(llama_folder)
    before = load_model(str(llama_folder), device="cpu", memory=memory)
    monkeypatch.setattr(proved, "prove_swept", None)
    after = load_model(str(llama_folder), device="cpu", memory=memory)
    assert after.abilities == before.abilities


def test_too_little_memory_for_two_blocks_is_said(llama_folder, monkeypatch):
    monkeypatch.setattr(loading, "without_weights", None)  # it is known from the files' headers
    with pytest.raises(ModelError, match=r"Even block by block .* Allow more"):
        load_model(str(llama_folder), device="cpu", memory=1_000)


def test_experts_that_are_fused_while_they_load_count_once(tmp_path):
    """On disk each expert has its own tensors; the resident module says what they take."""
    [one] = find_types("mixtral.causal")
    save_tiny(one, tmp_path)
    resident = load_model(str(tmp_path), device="cpu")

    def size(module):
        return sum(weight.numel() * weight.itemsize for weight in module.parameters())

    blocks = [size(block) for block in resident.blocks]
    large = (resident.module.get_input_embeddings(), resident.module.get_output_embeddings())
    outside = size(resident.module) - sum(blocks) - sum(map(size, large))
    limit = max(map(sum, itertools.pairwise(blocks))) + max(map(size, large)) + outside
    model = load_model(str(tmp_path), device="cpu", memory=limit)
    assert model.is_swept
    assert model.parts.peak_bytes == limit
    tokens = resident.tokenize(TEXTS)
    last = resident.n_layers - 1
    assert torch.equal(model.capture(tokens, [last])[last], resident.capture(tokens, [last])[last])
    with pytest.raises(ModelError, match="Even block by block"):
        load_model(str(tmp_path), device="cpu", memory=limit - 1)


def test_what_is_read_ahead_counts_as_on_the_disk(llama_folder):
    """In bfloat16 from files in float32: the block that computes and the norm take half of that,
    the next block and the table or the head all."""
    sizes = bytes_on_disk(llama_folder)
    block = sum(size for name, size in sizes.items() if "layers.0." in name)
    large = max(sizes["model.embed_tokens.weight"], sizes["lm_head.weight"])
    limit = block // 2 + block + large + sizes["model.norm.weight"] // 2
    assert load_model(str(llama_folder), "bfloat16", "cpu", memory=limit).parts.peak_bytes == limit
    with pytest.raises(ModelError, match="Even block by block"):
        load_model(str(llama_folder), "bfloat16", "cpu", memory=limit - 1)


def test_writing_on_and_splicing_are_refused_in_a_sentence(llama, batches):
    _, model = llama
    with pytest.raises(ModelError, match="read block by block"):
        Steps(model).next_logits(batches[0].ids[:1])
    with (
        pytest.raises(ModelError, match="read block by block"),
        model.splice(1, torch.zeros(1, 1, 16, dtype=torch.float32), batches[0].mask),
    ):
        pass
    assert "one after another" in model.why_not("cached_steps")
    with pytest.raises(InputError, match="there is no layer 9"):
        model.capture(batches[0], [9])


def test_a_type_whose_blocks_need_more_than_the_one_before_gives_is_refused(tmp_path):
    [one] = find_types("t5.seq2seq")
    save_tiny(one, tmp_path)
    with pytest.raises(ModelError, match="can't be used"):
        load_model(f"{tmp_path}:encoder", device="cpu", memory=too_little(tmp_path))


def test_a_type_that_was_never_tried_is_refused_by_name(llama_folder, monkeypatch):
    from itda_core.model import swept_proof

    monkeypatch.setattr(swept_proof, "known_type", lambda _name: None)
    monkeypatch.setattr(proved, "_file", lambda _identity: None)
    with pytest.raises(ModelError, match=r"no LlamaForCausalLM was tried block by block .*json"):
        load_model(str(llama_folder), device="cpu", memory=too_little(llama_folder))


def test_a_quantised_model_is_refused_by_its_method(tmp_path):
    save_tiny_model(tmp_path)
    rewrite_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match=r"quantised .gptq.*can't be read block by block"):
        load_model(str(tmp_path), device="cpu", memory=too_little(tmp_path))


def test_a_block_that_uses_the_embeddings_too_is_found_out(llama_folder, monkeypatch):
    """Blocks after the first add the embeddings of the text: where the table is not there any more,
    that must show."""
    monkeypatch.setattr(proved, "_file", lambda _identity: None)
    init = swept.SweptModel.__init__

    def spoilt(self, *arguments):
        init(self, *arguments)
        seen = []
        table = self.module.get_input_embeddings()
        forward = type(table).forward

        class Spied(type(table)):
            def forward(self, ids):
                seen[:] = [forward(self, ids)]
                return seen[0]

        table.__class__ = Spied
        plain = torch.nn.Module.__call__

        def added(_module, _inputs, output):
            return output + plain(table, self_ids[0])

        self_ids = []
        self.module.register_forward_pre_hook(
            lambda _module, _inputs, options: self_ids.__setitem__(
                slice(None), [options["input_ids"]]
            ),
            with_kwargs=True,
        )
        self.module.base_model.register_forward_pre_hook(
            lambda _module, _inputs, options: self_ids.__setitem__(
                slice(None), [options["input_ids"]]
            ),
            with_kwargs=True,
        )
        self.blocks[1].register_forward_hook(added)

    monkeypatch.setattr(swept.SweptModel, "__init__", spoilt)
    with pytest.raises(ModelError, match="gives nothing finite"):
        load_model(str(llama_folder), device="cpu", memory=too_little(llama_folder))
