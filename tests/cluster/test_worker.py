"""What a worker does where it can't do what it is asked, and what it leaves of its parts."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from itda_core.activations.plan import make_plan
from itda_core.cluster import kept_parts
from itda_core.cluster.capturing import seconds_before
from itda_core.cluster.kept_parts import KeptRows, PartRows
from itda_core.cluster.messages import Captured, Failure, Greeting, Orders, Share
from itda_core.cluster.worker import Worker
from itda_core.config import ModelSpec
from itda_core.corpus.corpus import load_corpus
from tests.support.trained_runs import tiny_config

TOKEN = ".shared-abc"


@pytest.fixture
def orders(tiny_model_folder, tmp_path):
    (tmp_path / TOKEN).touch()
    spec = ModelSpec(str(tiny_model_folder), dtype="float32")
    threads, here = torch.get_num_threads(), str(Path.cwd())
    return Orders(spec, "resid_post", (0, 1), None, threads, tmp_path, TOKEN, here)


@pytest.fixture
def worker(orders, tiny_model):
    """A worker whose model is there."""
    worker = Worker(orders)
    worker._model = tiny_model
    return worker


@pytest.fixture
def plan(tiny_model, config):
    return make_plan(tiny_model, load_corpus(config.corpus).training(0), config, config.max_tokens)


@pytest.fixture
def config(tiny_model_folder, tiny_corpus_file):
    changes = {"selection": "coverage", "explored_tokens": 300, "layers": (0, 1)}
    return tiny_config(tiny_model_folder, tiny_corpus_file, **changes)


def share_of(plan, kept, number, folder):
    windows = range(*kept.parts[number])
    to = [PartRows(folder, layer, "resid_post", "float32", kept.starts, 900) for layer in (0, 1)]
    texts = [plan.texts[slice(*plan.windows[window])] for window in windows]
    return Share(number, texts, [kept.of_window(window) for window in windows], to)


def test_parts_hold_the_explored_rows_and_the_sample_of_what_the_model_gives(
    worker, tiny_model, plan, config, tmp_path, monkeypatch
):
    """Against the activations of one call for all texts; rows are read across parts."""
    monkeypatch.setattr(kept_parts, "sample_size", lambda max_atoms: 150)
    monkeypatch.setattr(kept_parts, "_MOST_PARTS", 5)  # several windows each
    kept = KeptRows(plan, config, tiny_model.d_model)
    assert len(kept.parts) < len(plan.windows)
    assert 300 < len(kept.rows) < 450
    assert set(range(300)) <= set(kept.rows.tolist())
    written = [
        (said.part, said.layer)
        for number in range(len(kept.parts))
        for said in worker.work("capture", ([share_of(plan, kept, number, tmp_path)], True))
        if said.part is not None
    ]
    assert sorted(written) == [(p, layer) for p in range(len(kept.parts)) for layer in (0, 1)]
    whole = tiny_model.capture(plan.tokens(0, len(plan.prompts)), [0, 1])
    for layer in (0, 1):
        rows = PartRows(tmp_path, layer, "resid_post", "float32", kept.starts, len(kept.rows))
        expected = whole[layer][torch.from_numpy(kept.rows)]
        torch.testing.assert_close(rows.read(0, len(kept.rows)), expected)
        torch.testing.assert_close(rows.read(123, 200), expected[123:323])
        assert all(rows.unusable(part) == [0] * np.ptp(kept.parts[part]) for part in range(4))


def test_a_part_that_is_there_is_told_and_not_made_again(worker, plan, config, tmp_path):
    kept = KeptRows(plan, config, 16)
    share = share_of(plan, kept, 2, tmp_path)
    list(worker.work("capture", ([share], True)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    worker._model = None  # nothing asks it any more
    again = list(worker.work("capture", ([share], True)))
    assert again == [Captured(0.0, 2, 0), Captured(0.0, 2, 1)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")} == before


def test_a_part_that_is_not_what_was_written_is_made_anew(worker, plan, config, tmp_path):
    """Flipped bits anywhere, numbers and header alike; and what an earlier version wrote."""
    kept = KeptRows(plan, config, 16)
    share = share_of(plan, kept, 2, tmp_path)
    list(worker.work("capture", ([share], True)))
    rows = share.to[0]
    path = rows.path(2)
    whole = path.read_bytes()
    assert rows.take_up(2)
    for place in (*range(0, 200, 7), len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 8
        path.write_bytes(content)
        assert not rows.take_up(2), place
        assert not path.exists()
    list(worker.work("capture", ([share], True)))
    assert path.read_bytes() == whole
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path)
    assert rows.take_up(2)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_apart_and_leaves_no_part(
    worker, plan, config, tmp_path, monkeypatch, number
):
    def full(self, *_):
        raise OSError(number, "full")

    monkeypatch.setattr(PartRows, "write", full)
    share = share_of(plan, KeptRows(plan, config, 16), 0, tmp_path)
    *_, last = worker.work("capture", ([share], True))
    assert last.is_disk
    assert last.sentence == f"There is no space left on the disk of {tmp_path}"
    assert not [*tmp_path.glob("*part-*")]


def test_a_worker_that_does_not_reach_the_folder_says_so_before_it_loads_anything(orders, tmp_path):
    (tmp_path / TOKEN).unlink()
    _, failure = Worker(orders).work("greet", ())
    assert isinstance(failure, Failure)
    assert failure.is_input
    assert f"The folder {tmp_path} is not the one of the machine" in failure.sentence


def test_a_model_that_is_not_on_a_machine_is_told_with_the_machine(orders, tmp_path):
    missing = replace(orders, spec=ModelSpec(str(tmp_path / "none")))
    _, failure = Worker(missing).work("greet", ())
    assert failure.machine
    assert "There is no model folder" in failure.sentence


def test_relative_paths_are_meant_from_where_the_command_was_called(
    orders, tiny_model_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # and back again
    spec = ModelSpec(f"./{tiny_model_folder.name}", dtype="float32")
    there = replace(orders, spec=spec, folder=str(tiny_model_folder.parent))
    *_, greeting = Worker(there).work("greet", ())
    assert isinstance(greeting, Greeting)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_else_a_disk_says_is_a_sentence(worker, plan, config, tmp_path, monkeypatch, number):
    def refuse(*arguments, **options):
        raise OSError(number, "it says why", str(tmp_path))

    monkeypatch.setattr(PartRows, "write", refuse)
    kept = KeptRows(plan, config, 16)
    [failure] = worker.work("capture", ([share_of(plan, kept, 0, tmp_path)], True))
    assert "it says why" in failure.sentence
    assert not failure.is_disk, "another machine would be told the same"


def test_parts_of_a_plan_that_was_cut_differently_are_others(plan, config):
    """As another version, or another tokenizer under the same id, may cut it."""
    before = KeptRows(plan, config, 16).digest
    assert KeptRows(plan, config, 16).digest == before
    [(first, _), (_, end), *others] = plan.windows
    joined = replace(plan, windows=[(first, end), *others])
    assert KeptRows(joined, config, 16).digest != before
    text = replace(plan.texts[0], ids=plan.texts[0].ids[::-1])
    assert KeptRows(replace(plan, texts=[text, *plan.texts[1:]]), config, 16).digest != before


@pytest.mark.parametrize("said", ["", "[]", '{"seconds": null}', '{"seconds": NaN}', "-1"])
def test_seconds_of_any_content_are_a_number(tmp_path, said):
    file = tmp_path / "seconds.json"
    assert seconds_before(file) == 0.0
    file.write_text(said)
    assert seconds_before(file) == 0.0
    file.write_text('{"seconds": 2.5}')
    assert seconds_before(file) == 2.5
