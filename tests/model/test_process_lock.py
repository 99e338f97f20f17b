"""Sessions are threads of one process: what they share is taken by one at a time."""

import subprocess
import sys
import threading

import torch
from transformers import modeling_utils

from itda_core.model.loading import load_model
from itda_core.model.process_lock import PROCESS_LOCK
from tests.support.tiny_models import TEXTS, save_tiny_model

_FOUR_SESSIONS = """
import ast, pathlib, sys, threading
from concurrent.futures import ThreadPoolExecutor
import streamlit  # whose server is there before any session

began = threading.Barrier(4)

def session(page, folder, dtype):
    source = ast.parse(pathlib.Path("pages", page + ".py").read_text())
    imports = [node for node in source.body if isinstance(node, ast.Import | ast.ImportFrom)]
    began.wait()
    for node in imports:  # what the page imports, the first time in this process
        exec(ast.unparse(node), {})
    from pages.components.cached import loaded_model
    from itda_core.config import ModelSpec
    model = loaded_model(ModelSpec(folder, dtype=dtype))
    tokens = model.tokenize(TEXTS)
    return [float(model.capture(tokens, [layer])[layer].double().sum()) for layer in (0, 3)]

TEXTS = sys.argv[1:5]
pages = ("decompose", "latents", "similarity", "train")
dtypes = ("float32", "bfloat16", "float32", "bfloat16")
with ThreadPoolExecutor(4) as threads:
    for sums in list(threads.map(session, pages, sys.argv[5:], dtypes)):
        print(*sums)
"""


def test_four_sessions_that_open_cold_at_once_load_their_models(tmp_path):
    """Pages, torch, transformers and four models, each for the first time, in four threads."""
    families = ("llama", "gpt2", "bert", "gpt_neox")
    folders = [str(save_tiny_model(tmp_path / family, family)) for family in families]
    done = subprocess.run(
        [sys.executable, "-c", _FOUR_SESSIONS, *TEXTS, *folders],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    for folder, dtype, sums in zip(folders, ("float32", "bfloat16") * 2, found, strict=True):
        model = load_model(folder, dtype)
        activations = model.capture(model.tokenize(TEXTS), [0, 3])
        expected = [float(activations[layer].double().sum()) for layer in (0, 3)]
        torch.testing.assert_close(torch.tensor(sums), torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_no_model_computes_while_another_is_being_built(tmp_path, monkeypatch):
    """transformers sets the default data type of the whole process meanwhile."""
    model = load_model(str(save_tiny_model(tmp_path / "one")))
    tokens, other = model.tokenize(TEXTS), save_tiny_model(tmp_path / "other", seed=1)
    building, go_on, seen = threading.Event(), threading.Event(), []
    as_it_was = modeling_utils.local_torch_dtype

    def slow(*arguments):
        building.set()
        assert go_on.wait(60)
        return as_it_was(*arguments)

    monkeypatch.setattr(modeling_utils, "local_torch_dtype", slow)
    load = threading.Thread(target=load_model, args=(str(other), "bfloat16"))
    load.start()
    assert building.wait(60)
    capture = threading.Thread(target=lambda: seen.append(model.capture(tokens, [0])))
    capture.start()
    capture.join(0.3)
    assert not seen
    go_on.set()
    load.join()
    capture.join()
    assert seen[0][0].dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_a_thread_that_holds_the_lock_may_take_it_again():
    with PROCESS_LOCK:
        assert PROCESS_LOCK.acquire(timeout=1)
        PROCESS_LOCK.release()
