"""A finished dictionary's codes of the explored tokens, and its measures on held-out ones."""

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from itda_core.activations.massive import massive
from itda_core.activations.plan import make_plan
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import CorpusError
from itda_core.evaluation.metrics import ReconstructionSums, used_terms
from itda_core.pursuit.codes import Codes, tokens_together
from itda_core.runs.near_misses import NearMisses
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import RowFile

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


def write_codes(
    folder: Path,
    context: TrainingContext,
    dictionary: Dictionary,
    explored: RowFile,
    gram: torch.Tensor | None,
) -> dict[str, float | int | None]:
    """Encode the explored activations in blocks into codes.parquet, and what nearly became a term
    into nearly.parquet; returns what metrics.json says of them."""
    prompts, positions = context.plan.first_rows(len(explored))
    names = pa.array([prompt.prompt_id for prompt in context.plan.prompts])
    sums, is_used = ReconstructionSums(), np.zeros(len(dictionary), bool)
    near_misses = NearMisses(dictionary, gram)
    with pq.ParquetWriter(folder / "codes.parquet", _CODE_SCHEMA, compression="zstd") as writer:
        together = min(_ENCODE_TOGETHER, tokens_together(dictionary.l0))
        for first in range(0, len(explored), together):
            block = slice(first, first + together)
            x = explored.read(first, together)
            is_finite = torch.isfinite(x).all(1)
            x = x[is_finite]
            codes = dictionary.encode(x, gram=gram)
            xhat = dictionary.decode(codes)
            sums.add(x, xhat)
            tokens = [numbers[block][is_finite.numpy()] for numbers in (prompts, positions)]
            near_misses.add(x - xhat, codes, *tokens)
            table = _code_table(codes, *tokens, names)
            is_used[table.column("latent").to_numpy()] = True
            writer.write_table(table)
    near_misses.save(folder, names)
    return {
        "explored_tokens": sums.tokens,
        "explored_fvu": None if np.isnan(sums.fvu) else sums.fvu,
        "unused_share": 1 - float(is_used.mean()) if sums.tokens else None,
    }


def _code_table(
    codes: Codes, prompts: np.ndarray, positions: np.ndarray, names: pa.Array
) -> pa.Table:
    """Codes as rows, without terms that are nothing; prompts: their numbers in `names`.

    A token that is an atom itself is explained by one term; those that follow are rounding.
    """
    coefficients = codes.coefficients.numpy().ravel()
    is_term = used_terms(codes).numpy().ravel()
    steps = np.tile(np.arange(codes.l0, dtype=np.int16), len(codes))
    prompt_numbers = np.repeat(prompts, codes.l0)[is_term].astype(np.int32)
    columns = [
        codes.latents.numpy().ravel()[is_term].astype(np.int32),
        pa.DictionaryArray.from_arrays(prompt_numbers, names),
        np.repeat(positions, codes.l0)[is_term].astype(np.int32),
        steps[is_term],
        coefficients[is_term],
    ]
    return pa.table(columns, schema=_CODE_SCHEMA)


class HeldOut:
    """The held-out activations of all layers of a training, captured once."""

    def __init__(self, context: TrainingContext):
        self._context = context

    @functools.cached_property
    def _activations(self) -> dict[int, torch.Tensor]:
        """By layer; none where no held-out prompt has two tokens."""
        model, config = self._context.model, self._context.config
        try:
            plan = make_plan(model, self._context.corpus.held_out(), config, HELD_OUT_TOKENS)
        except CorpusError:
            return {}
        tokens = plan.tokens(0, len(plan.prompts))
        return dict(model.capture(tokens, config.layers, config.skip_first))

    def measures(
        self, layer: int, dictionary: Dictionary, gram: torch.Tensor | None
    ) -> dict[str, float | int | None]:
        """FVU on held-out prompts, where the corpus has any of two tokens: of all tokens, and
        without massive activations."""
        x = self._activations.get(layer, torch.zeros(0, dictionary.d_model, dtype=torch.float32))
        x = x[torch.isfinite(x).all(1)]
        norms = x.norm(dim=1)
        is_usual = ~massive(norms, dictionary.median_norm or float(norms.nanmedian()))
        everything, usual = ReconstructionSums(), ReconstructionSums()
        together = tokens_together(dictionary.l0)
        for part, keeps in zip(x.split(together), is_usual.split(together), strict=True):
            xhat = dictionary.decode(dictionary.encode(part, gram=gram))
            everything.add(part, xhat)
            usual.add(part[keeps], xhat[keeps])
        return {
            "held_out_tokens": len(x),
            "fvu": None if np.isnan(everything.fvu) else everything.fvu,
            "fvu_without_massive": None if np.isnan(usual.fvu) else usual.fvu,
            "massive_held_out_tokens": int((~is_usual).sum()),
        }
