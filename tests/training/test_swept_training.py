"""A training whose model is read block by block: the same runs as with the model in memory, each
weight read once, within the memory that was allowed, and resumed to the same runs."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import transformers

from itda_core.errors import ItdaError
from itda_core.model.forward_batches import FORWARD_TOKENS
from itda_core.model.swept import SweptModel
from itda_core.model.weight_files import StoredTensor
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.rows import RowFile
from itda_core.runs.run import list_runs
from itda_core.training import trainer as training
from itda_core.training.trainer import resume, train
from tests.support.swept_models import bytes_on_disk, too_little
from tests.support.tiny_models import tiny_tokenizer
from tests.support.trained_runs import advance, assert_same_runs, long_config, tiny_config


@pytest.fixture(scope="module")
def memory(tiny_model_folder):
    return too_little(tiny_model_folder)


@pytest.fixture
def coverage_config(config):
    return dataclasses.replace(config, selection="coverage", layers=(3, 1), offset="mean")


def finish(name, runs, memory):
    last = [*resume(name, runs, "cpu", memory)][-1]
    assert last.stage == "done"
    assert sorted(path.name for path in runs.iterdir()) == sorted(last.finished)


def test_it_gives_the_runs_that_the_model_in_memory_gives(config, undisturbed, tmp_path, memory):
    list(train(config, tmp_path, "cpu", memory))
    assert_same_runs(tmp_path, undisturbed)


def test_the_coverage_too_and_held_out_measures(coverage_config, tmp_path, memory):
    list(train(coverage_config, tmp_path / "swept", "cpu", memory))
    list(train(coverage_config, tmp_path / "resident", "cpu"))
    assert_same_runs(tmp_path / "swept", tmp_path / "resident")
    assert all(run.metrics["held_out_tokens"] for run in list_runs(tmp_path / "swept"))


def test_a_layer_that_is_full_counts_what_it_read_whichever_way_the_others_are_read(
    config, tmp_path, memory
):
    """Some windows in, layer 1 is full and its explored part is there; alone it ends then."""
    config = dataclasses.replace(config, max_atoms=60, explored_tokens=100)
    alone = dataclasses.replace(config, layers=(1,))
    list(train(alone, tmp_path / "alone", "cpu"))
    [expected] = list_runs(tmp_path / "alone")
    assert expected.metrics["tokens"] < config.max_tokens
    for name, room in (("swept", memory), ("resident", None)):
        list(train(config, tmp_path / name, "cpu", room))
        [run] = [run for run in list_runs(tmp_path / name) if run.layer == 1]
        assert run.metrics["tokens"] == expected.metrics["tokens"]
    assert_same_runs(tmp_path / "swept", tmp_path / "resident")


def test_every_weight_is_read_once(
    config, tmp_path, tiny_model_folder, memory, undisturbed, monkeypatch
):
    list(train(config, tmp_path / "before", "cpu", memory))  # which proves the model
    read, once = [], StoredTensor.read
    monkeypatch.setattr(
        StoredTensor, "read", lambda self, *where: read.append(self) or once(self, *where)
    )
    list(train(config, tmp_path / "runs", "cpu", memory))
    needed = [
        size
        for name, size in bytes_on_disk(tiny_model_folder).items()
        if re.search(r"embed_tokens|model\.norm|layers\.[012]\.", name)
    ]
    assert len({(one.path, one.start) for one in read}) == len(read) == len(needed)
    assert sum(one.n_bytes for one in read) == sum(needed)


def test_the_progress_tells_the_block_and_rises(config, tmp_path, memory):
    steps = [step for step in trained_with(config, tmp_path, memory) if step.stage == "training"]
    assert [*dict.fromkeys(step.block for step in steps)] == [0, 1, 2]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert steps[-1].tokens == 1_000


def trained_with(config, runs, memory):
    return [dataclasses.replace(step) for step in train(config, runs, "cpu", memory)]


@pytest.mark.parametrize(("number", "is_kept"), [(2, True), (20, False), (40, True), (58, True)])
def test_a_closed_training_resumes_to_the_same_runs(
    config, undisturbed, tmp_path, memory, number, is_kept, monkeypatch
):
    """is_kept: whether hidden states are brought to the disk after each block."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0 if is_kept else 1e9)
    steps = train(config, tmp_path, "cpu", memory)
    at = advance(steps, "training", number).training_id
    steps.close()
    assert interrupted_trainings(tmp_path) == {at: config}
    finish(at, tmp_path, memory)
    assert_same_runs(tmp_path, undisturbed)


def test_nothing_that_the_checkpoint_counts_is_written_over(config, tmp_path, memory, monkeypatch):
    """Else another machine's rounding would take from the checkpoint what it counts on."""
    steps = train(config, tmp_path, "cpu", memory)
    at = advance(steps, "training", 20).training_id
    steps.close()
    [state] = tmp_path.glob(".*/checkpoint-*/state.json")
    counted = {name: one["bytes"] for name, one in json.loads(state.read_text())["arrays"].items()}
    assert counted["held-out-0.f32"]
    starts, write = {}, RowFile.write

    def note(file, first, rows):
        starts.setdefault(Path(file._file.name).name, []).append(4 * first * file.width)
        write(file, first, rows)

    monkeypatch.setattr(RowFile, "write", note)
    finish(at, tmp_path, memory)
    assert all(start >= counted.get(name, 0) for name in starts for start in starts[name])


def test_what_is_done_of_the_blocks_is_not_computed_again(config, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    steps = train(config, tmp_path, "cpu", memory)
    at = next(step.training_id for step in steps if step.block == 2)
    steps.close()
    blocks, through = [], SweptModel._through
    monkeypatch.setattr(
        SweptModel,
        "_through",
        lambda self, block, *rest: blocks.append(block) or through(self, block, *rest),
    )
    finish(at, tmp_path, memory)
    assert set(blocks) == {2}


def test_hidden_states_that_are_not_what_was_written_are_computed_again(
    config, undisturbed, tmp_path, memory, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    steps = train(config, tmp_path, "cpu", memory)
    at = next(step.training_id for step in steps if step.block == 2)
    steps.close()
    [file] = [path for path in tmp_path.glob(".*/hidden-*") if not path.suffix]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 64
    file.write_bytes(content)
    finish(at, tmp_path, memory)
    assert_same_runs(tmp_path, undisturbed)


def test_hidden_states_are_kept_until_all_is_read_and_then_dropped(
    config, undisturbed, tmp_path, memory, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    seen, steps = {}, train(config, tmp_path, "cpu", memory)
    for step in steps:
        kept = [path.name for path in tmp_path.glob(".*/hidden-*")]
        seen.setdefault((step.stage, step.block), []).append(kept)
        if step.stage == "encoding":
            steps.close()
    assert any(seen["training", 2])
    assert not any(seen["choosing", None]) and not any(seen["encoding", None])
    [at] = interrupted_trainings(tmp_path)
    finish(at, tmp_path, memory)
    assert_same_runs(tmp_path, undisturbed)


def test_hidden_states_of_other_batches_are_not_gone_on_from(config, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    steps = train(config, tmp_path, "cpu", memory)
    at = next(step.training_id for step in steps if step.block == 2)
    steps.close()
    monkeypatch.setitem(FORWARD_TOKENS, "cpu", 64)
    blocks = {step.block for step in resume(at, tmp_path, "cpu", memory)}
    assert {0, 1, 2} <= blocks


@pytest.mark.parametrize("swept_first", [True, False])
def test_a_training_may_go_on_with_another_memory(
    config, undisturbed, tmp_path, memory, swept_first
):
    first, then = (memory, None) if swept_first else (None, memory)
    steps = train(config, tmp_path, "cpu", first)
    at = advance(steps, "training", 9).training_id
    steps.close()
    finish(at, tmp_path, then)
    assert_same_runs(tmp_path, undisturbed)


def test_a_block_that_is_lacking_is_said_and_keeps_what_was_done(
    config, undisturbed, tmp_path, memory, monkeypatch
):
    through = SweptModel._through

    def fails(self, block, *rest):
        if block == 2:
            raise MemoryError
        return through(self, block, *rest)

    with monkeypatch.context() as patch, pytest.raises(ItdaError, match="Memory is full"):
        patch.setattr(SweptModel, "_through", fails)
        list(train(config, tmp_path, "cpu", memory))
    [at] = interrupted_trainings(tmp_path)
    finish(at, tmp_path, memory)
    assert_same_runs(tmp_path, undisturbed)


KILLED = """
    import sys, time
    from pathlib import Path
    from itda_core.config import TrainConfig
    from itda_core.training import trainer
    import json
    trainer.CHECKPOINT_SECONDS = 0.0
    config = TrainConfig.from_dict(json.loads(sys.argv[1]))
    for step in trainer.train(config, Path(sys.argv[2]), "cpu", int(sys.argv[3])):
        print(step.stage, step.block, flush=True)
        time.sleep(0.002)
"""


def test_a_killed_process_resumes_to_the_same_runs(tiny_model_folder, tiny_texts, tmp_path, memory):
    config = long_config(tmp_path, tiny_model_folder, tiny_texts, layers=(1, 3), max_tokens=3_000)
    arguments = [json.dumps(config.to_dict()), str(tmp_path / "killed"), str(memory)]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    ) as process:
        for line in process.stdout:
            if line.split() == ["training", "2"]:
                time.sleep(0.02)
                process.send_signal(signal.SIGKILL)
                break
    [at] = interrupted_trainings(tmp_path / "killed")
    finish(at, tmp_path / "killed", memory)
    list(train(config, tmp_path / "resident", "cpu"))
    assert_same_runs(tmp_path / "killed", tmp_path / "resident")


# A larger model on disk, in a process of its own, by the counters of the system


CAPPED = """
    import gc, json, sys
    from pathlib import Path
    import torch
    from itda_core.config import TrainConfig
    from itda_core.model.loading import load_model
    from itda_core.model.forward_batches import FORWARD_TOKENS
    from itda_core.training.trainer import train

    def counted():
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["rchar"])

    def memory_of(name):
        [line] = [line for line in Path("/proc/self/status").open() if line.startswith(name)]
        return int(line.split()[1]) * 1024

    torch.set_num_threads(1)
    FORWARD_TOKENS["cpu"] = 128  # what a pass takes beside the weights is not what is measured
    small, large = (TrainConfig.from_dict(json.loads(text)) for text in sys.argv[1:3])
    runs, memory = Path(sys.argv[3]), int(sys.argv[4])
    list(train(small, runs, "cpu"))  # all libraries are there from here on
    base = memory_of("VmRSS")
    load_model(large.model, device="cpu", memory=memory)  # which proves the model
    before = counted()
    gc.freeze()  # so that what is looked through at each step is little
    for step in train(large, runs, "cpu", memory):
        gc.collect()  # what is only not collected yet is not what is measured
        if step.stage == "training":
            swept = memory_of("VmHWM")  # what chooses and encodes afterwards has no model any more
    print(json.dumps({"read": counted() - before, "base": base, "peak": swept}))
"""
FINGERPRINT = 64 * 65_536
"""Bytes of each file that name the model"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/io is Linux's")
def test_a_model_larger_than_its_cap_is_trained_within_it_and_read_once(
    tiny_model_folder, tiny_corpus_file, tmp_path
):
    folder = tmp_path / "large"
    large_llama(folder)
    sizes = bytes_on_disk(folder)
    block = sum(size for name, size in sizes.items() if "layers.0." in name)
    outside = max(size for name, size in sizes.items() if "layers." not in name)
    cap = 2 * block + outside + 2**20
    assert sum(sizes.values()) > 3 * cap
    fields = {"layers": (6,), "max_tokens": 600, "max_atoms": 32, "explored_tokens": 100}
    configs = [tiny_config(tiny_model_folder, tiny_corpus_file, **{**fields, "layers": (1,)})]
    configs.append(tiny_config(folder, tiny_corpus_file, **fields))
    arguments = [json.dumps(config.to_dict()) for config in configs]
    arguments += [str(tmp_path / "runs"), str(cap)]
    process = [sys.executable, "-c", textwrap.dedent(CAPPED), *arguments]
    measured = json.loads(
        subprocess.run(process, check=True, capture_output=True, text=True).stdout
    )
    needed = sum(
        size for name, size in sizes.items() if "lm_head" not in name and "layers.7." not in name
    )
    others = FINGERPRINT * len([*folder.glob("*.safetensors")])
    assert needed <= measured["read"] - others < needed + 2e7 < 1.2 * needed  # corpus, rows, codes
    # Hidden states, a pass, the rows that are kept; and a tensor that is handed over, now and then.
    buffers = 16e6 + max(size for name, size in sizes.items() if "layers." in name)
    assert measured["peak"] - measured["base"] < cap + buffers


def large_llama(folder):
    """A random Llama of some 140 MB, an eighth of it in each of 8 blocks."""
    tokenizer = tiny_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=512, intermediate_size=2_048, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=256,
        bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    module.save_pretrained(folder, max_shard_size="60MB")
    tokenizer.save_pretrained(folder)
