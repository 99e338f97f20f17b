"""What nnsight and TransformerLens make of a tiny model, in a process of their own: nnsight gives
every object a method `save` when it is imported.

Run as a script: writes FOLDER/nnsight and FOLDER/lens, and into FOLDER/told.json what was refused.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from itda_core.config import CorpusSpec
from itda_core.errors import ItdaError

CORPUS = "texts.txt"
MODEL = "model"
LENS_BATCHES = ((0, 3), (3, 7))
TOLD = "told.json"


def is_installed(package: str) -> bool:
    return find_spec(package) is not None


def ask(folder: Path) -> dict[str, str]:
    """Let what is installed capture folder/model on folder/texts.txt."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = str(Path(__file__).resolve().parents[2])
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads((folder / TOLD).read_text())


def _main(folder: Path) -> None:
    told = {}
    if is_installed("transformer_lens"):
        _with_lens(folder, told)
    if is_installed("nnsight"):
        _with_nnsight(folder, told)
    (folder / TOLD).write_text(json.dumps(told))


def _with_nnsight(folder: Path, told: dict[str, str]) -> None:
    from nnsight import TransformersModel

    from itda_core.exchange.capture_nnsight import TracedModel
    from itda_core.training.folder_capture import capture_config, capture_folder

    model = TransformersModel(
        str(folder / MODEL), task="text-generation", dispatch=True, dtype=torch.float32
    )
    traced = TracedModel(model)
    corpus = CorpusSpec(str(folder / CORPUS))
    config = capture_config(traced.spec, corpus, [1, 2], max_tokens=200, context_length=24)
    for _ in capture_folder(config, folder / "nnsight", model=traced):
        pass
    told["layer"] = _refusal(lambda: traced.check_layers([1, 9]))
    told["list"] = _refusal(lambda: TracedModel(model, blocks="transformer.h.0.mlp"))
    traced._blocks = [block.mlp for block in model.transformer.h]  # of the right shape
    traced._is_proved = False
    told["blocks"] = _refusal(lambda: _captured(traced))


def _captured(traced) -> None:
    from itda_core.model.tokens import padded

    tokens = traced.tokenized(["a text of words"], 24)
    traced.capture(padded(traced.tokenizer, tokens), [0])


def _with_lens(folder: Path, told: dict[str, str]) -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from itda_core.exchange.capture_transformer_lens import CacheRecorder

    name = str(folder / MODEL)
    module = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = TransformerBridge.boot_transformers(
        name, hf_model=module, tokenizer=tokenizer, device="cpu"
    )
    texts = (folder / CORPUS).read_text(encoding="utf-8").split("\n\n")[:7]
    recorder = CacheRecorder(model, folder / "lens", layers=[1, 2])
    for first, last in LENS_BATCHES:
        _, cache = model.run_with_cache(texts[first:last], names_filter=recorder.hook_names)
        told["texts"] = _refusal(lambda cache=cache: recorder.add(texts[:1], cache))
        recorder.add(texts[first:last], cache)
    _, empty = model.run_with_cache(texts[-1:], names_filter=["blocks.0.hook_resid_post"])
    told["hook"] = _refusal(lambda: recorder.add(["a text of words"], empty))
    recorder.finish()


def _refusal(act) -> str:
    try:
        act()
    except ItdaError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
