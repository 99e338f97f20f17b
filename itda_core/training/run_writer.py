"""The end of a training: encode the explored tokens, measure, write the run directory."""

import dataclasses
import functools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from itda_core.activations.massive import massive
from itda_core.activations.plan import Plan, make_plan
from itda_core.config import TrainConfig, run_id
from itda_core.corpus.corpus import Corpus, Prompt
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import CorpusError
from itda_core.evaluation.metrics import ReconstructionSums, used_terms
from itda_core.files import write_json
from itda_core.model.model import Model
from itda_core.pursuit.codes import Codes, tokens_together
from itda_core.runs.near_misses import NearlyChosen
from itda_core.runs.run import new_run
from itda_core.runs.workspace import RowFile, Workspace

HELD_OUT_TOKENS = 4_096
_ENCODE_TOGETHER = 8_192
"""Tokens encoded, measured and written together; memory holds no more of them."""
_CODE_SCHEMA = pa.schema(
    [
        ("latent", pa.int32()),
        ("prompt_id", pa.dictionary(pa.int32(), pa.string())),
        ("position", pa.int32()),
        ("step", pa.int16()),
        ("coefficient", pa.float32()),
    ]
)


class Finisher:
    """Writes the run directories of one training."""

    def __init__(
        self,
        config: TrainConfig,
        model: Model,
        corpus: Corpus,
        plan: Plan,
        workspace: Workspace,
    ):
        self.config, self.model, self.corpus, self.plan = config, model, corpus, plan
        self.workspace = workspace
        self._held_out: dict[int, torch.Tensor] | None = None

    def log(self, progress) -> None:
        """Add a line to the training's progress.jsonl."""
        line = {"time": datetime.now(UTC).isoformat(), **dataclasses.asdict(progress)}
        with (self.workspace.directory / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def finish(
        self,
        layer: int,
        dictionary: Dictionary,
        kept: RowFile,
        facts: dict[str, Any],
        about: dict[str, Any] | None = None,
    ) -> str:
        """Write the run of one layer and return its id; one that is there already stays.

        kept: the explored activations; facts: what the training knows, for metrics.json; about:
        what else config.json has to say, of an import for example.
        """
        name = run_id(self.workspace.training_id, layer)
        if (self.workspace.runs / name).exists():
            return name
        with new_run(self.workspace.runs, name) as folder:
            dictionary.save(folder)
            dictionary.sources.assign(word=dictionary.words).to_parquet(folder / "sources.parquet")
            gram = dictionary.gram()
            explored = self._write_codes(folder, dictionary, kept, gram)
            self._prompt_table.to_parquet(folder / "prompts.parquet")
            metrics = {
                **facts,
                "atoms": len(dictionary),
                **explored,
                **self._held(layer, dictionary, gram),
            }
            write_json(folder / "metrics.json", metrics)
            write_json(folder / "config.json", {**self._about(name, layer), **(about or {})})
            self._copy_log(folder)
        return name

    def _about(self, name: str, layer: int) -> dict[str, Any]:
        return {
            "run_id": name,
            "training_id": self.workspace.training_id,
            "layer": layer,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "d_model": self.model.d_model,
            "n_layers": self.model.n_layers,
            "dtype": self.model.dtype,
            "device": self.model.device.type,
            "model_digest": self.model.digest,
            "corpus_digest": self.corpus.digest,
            "config": self.config.to_dict(),
        }

    def _write_codes(
        self, folder: Path, dictionary: Dictionary, kept: RowFile, gram: torch.Tensor | None
    ) -> dict[str, float | int]:
        """Encode the explored activations in blocks, and note what nearly became a term; returns
        what that shows."""
        prompts, positions = self.plan.first_rows(len(kept))
        names = pa.array([prompt.prompt_id for prompt in self.plan.prompts])
        sums, used = ReconstructionSums(), np.zeros(len(dictionary), bool)
        nearly = NearlyChosen(dictionary, gram)
        path = folder / "codes.parquet"
        with pq.ParquetWriter(path, _CODE_SCHEMA, compression="zstd") as writer:
            together = min(_ENCODE_TOGETHER, tokens_together(dictionary.l0))
            for first in range(0, len(kept), together):
                block = slice(first, first + together)
                x = kept.read(first, together)
                finite = torch.isfinite(x).all(1)
                x, rows = x[finite], finite.numpy()
                codes = dictionary.encode(x, gram=gram)
                xhat = dictionary.decode(codes)
                sums.add(x, xhat)
                tokens = prompts[block][rows], positions[block][rows]
                nearly.add(x - xhat, codes, *tokens)
                table = _code_table(codes, *tokens, names)
                used[table.column("latent").to_numpy()] = True
                writer.write_table(table)
        nearly.save(folder, names)
        return {
            "explored_tokens": sums.tokens,
            "explored_fvu": None if np.isnan(sums.fvu) else sums.fvu,
            "unused_share": 1 - float(used.mean()) if sums.tokens else None,
        }

    @functools.cached_property
    def _prompt_table(self) -> pd.DataFrame:
        """The prompts that were read, with the character span of each token that was."""
        explored = np.cumsum(self.plan.rows) - self.plan.rows < self.config.explored_tokens
        starts, ends = [], []
        for first, last in self.plan.windows:
            tokens = self.plan.tokens(self.model, first, last)
            for row, length in enumerate(tokens.lengths):
                starts.append(tokens.spans[row, :length, 0].astype(np.int32))
                ends.append(tokens.spans[row, :length, 1].astype(np.int32))
        return pd.DataFrame(
            {
                "prompt_id": [prompt.prompt_id for prompt in self.plan.prompts],
                "text": [prompt.text for prompt in self.plan.prompts],
                "title": [prompt.title for prompt in self.plan.prompts],
                "explored": explored,
                "starts": starts,
                "ends": ends,
            }
        )

    def _held(
        self, layer: int, dictionary: Dictionary, gram: torch.Tensor | None
    ) -> dict[str, float | int | None]:
        """FVU on held-out prompts, where the corpus has any of two tokens: of all tokens, and
        without massive activations."""
        if self._held_out is None:
            self._held_out = self._capture_held_out(self.corpus.held_out())
        x = self._held_out.get(layer, torch.zeros(0, self.model.d_model))
        x = x[torch.isfinite(x).all(1)]
        everything, usual = ReconstructionSums(), ReconstructionSums()
        norms = x.norm(dim=1)
        is_usual = ~massive(norms, dictionary.median_norm or float(norms.nanmedian()))
        for part, is_kept in zip(
            x.split(tokens_together(dictionary.l0)),
            is_usual.split(tokens_together(dictionary.l0)),
            strict=True,
        ):
            xhat = dictionary.decode(dictionary.encode(part, gram=gram))
            everything.add(part, xhat)
            usual.add(part[is_kept], xhat[is_kept])
        return {
            "held_out_tokens": len(x),
            "fvu": None if np.isnan(everything.fvu) else everything.fvu,
            "fvu_without_massive": None if np.isnan(usual.fvu) else usual.fvu,
            "massive_held_out_tokens": int((~is_usual).sum()),
        }

    def _capture_held_out(self, prompts: list[Prompt]) -> dict[int, torch.Tensor]:
        try:
            plan = make_plan(self.model, prompts, self.config, HELD_OUT_TOKENS)
        except CorpusError:  # none of them has two tokens
            return {}
        tokens = plan.tokens(self.model, 0, len(plan.prompts))
        return dict(self.model.capture(tokens, self.config.layers, self.config.skip_first))

    def _copy_log(self, folder: Path) -> None:
        log = self.workspace.directory / "progress.jsonl"
        content = log.read_bytes() if log.exists() else b""
        (folder / "progress.jsonl").write_bytes(content)


def _code_table(
    codes: Codes, prompts: np.ndarray, positions: np.ndarray, names: pa.Array
) -> pa.Table:
    """Codes as rows, without terms that are nothing; prompts: their numbers in `names`.

    A token that is an atom itself is explained by one term; those that follow are rounding.
    """
    coefficients = codes.coefficients.numpy().ravel()
    nonzero = used_terms(codes).numpy().ravel()
    steps = np.tile(np.arange(codes.l0, dtype=np.int16), len(codes))
    prompt_numbers = np.repeat(prompts, codes.l0)[nonzero].astype(np.int32)
    columns = [
        codes.latents.numpy().ravel()[nonzero].astype(np.int32),
        pa.DictionaryArray.from_arrays(prompt_numbers, names),
        np.repeat(positions, codes.l0)[nonzero].astype(np.int32),
        steps[nonzero],
        coefficients[nonzero],
    ]
    return pa.table(columns, schema=_CODE_SCHEMA)
