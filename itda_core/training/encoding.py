"""A finished dictionary's codes of the explored tokens, and its measures on held-out ones."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from itda_core.activations.massive import massive
from itda_core.devices import halving, to_device, to_host
from itda_core.dictionary.dictionary import Dictionary
from itda_core.evaluation.metrics import ReconstructionSums, used_terms
from itda_core.pursuit.codes import Codes, tokens_together
from itda_core.runs.near_misses import NearMisses, terms_after
from itda_core.runs.rows import DeviceRows, RowFile
from itda_core.runs.training_context import TrainingContext
from itda_core.tables import table_writer
from itda_core.training.held_out import HeldOutActivations

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


Written = Generator[None, None, dict[str, float | int | None]]
"""Comes back now and then, where the work may be given up, and gives measures for metrics.json"""


class Encoder(Protocol):
    """Encodes what a run keeps of one finished dictionary."""

    def blocks(self, explored: RowFile | DeviceRows) -> "Iterator[Block | None]":
        """The explored activations in their order, block by block; None now and then where it
        waits for others."""
        ...

    def held_out(self) -> Written:
        """What `held_out_measures` says of its layer's held-out activations."""
        ...


class EncoderHere:
    """In this process, on the dictionary's device."""

    def __init__(self, layer: int, dictionary: Dictionary, activations: HeldOutActivations):
        self._layer, self._activations = layer, activations
        self._dictionary, self._gram = dictionary, dictionary.gram()

    def blocks(self, explored: RowFile | DeviceRows) -> "Iterator[Block]":
        return encoded_blocks(explored, 0, len(explored), self._dictionary, self._gram)

    def held_out(self) -> Written:
        yield
        x = self._activations.of(self._layer)
        return held_out_measures(x, self._dictionary, self._gram)


def write_codes(
    folder: Path,
    context: TrainingContext,
    dictionary: Dictionary,
    blocks: "Iterable[Block | None]",
) -> Written:
    """Write the encoded blocks of the explored activations into codes.parquet, and what nearly
    became a term into nearly.parquet; comes back after each, and gives what metrics.json says of
    them."""
    prompts, positions = context.plan.first_rows(context.explored_rows)
    names = pa.array([prompt.prompt_id for prompt in context.plan.prompts])
    sums, is_used = ReconstructionSums(), np.zeros(len(dictionary), bool)
    near_misses, first = NearMisses(context.explored_rows), 0
    with table_writer(folder / "codes.parquet", _CODE_SCHEMA, "zstd") as writer:
        for block in blocks:
            yield
            if block is None:
                continue
            rows = first + np.flatnonzero(block.is_finite)
            first += len(block.is_finite)
            sums.merge(block.sums)
            near_misses.add(block.next_terms, prompts[rows], positions[rows])
            table = _code_table(block.codes, prompts[rows], positions[rows], names)
            is_used[table.column("latent").to_numpy()] = True
            writer.write_table(table)
    near_misses.save(folder, names)
    return {
        "explored_tokens": sums.tokens,
        "explored_fvu": None if np.isnan(sums.fvu) else sums.fvu,
        "unused_share": 1 - float(is_used.mean()) if sums.tokens else None,
    }


@dataclass(frozen=True)
class Block:
    """A block of explored tokens, encoded; on the host."""

    is_finite: np.ndarray
    """[n_tokens] bool; only those are encoded"""
    codes: Codes
    next_terms: list[torch.Tensor]
    sums: ReconstructionSums


def block_size(dictionary: Dictionary) -> int:
    """Tokens that are encoded together."""
    return min(_ENCODE_TOGETHER, tokens_together(dictionary.l0))


def encoded_blocks(
    explored: RowFile | DeviceRows,
    first: int,
    last: int,
    dictionary: Dictionary,
    gram: torch.Tensor | None,
) -> Iterator[Block]:
    """The explored activations from `first` to `last` (not included) in blocks, smaller ones where
    memory has no room. gram: what `dictionary.gram()` gives."""

    def encoded(start: int, end: int) -> Block:
        x = explored.read(first + start, end - start)
        return _encoded(x, dictionary, gram)

    yield from halving(encoded, last - first, block_size(dictionary), _no_room(dictionary))


def _encoded(x: torch.Tensor, dictionary: Dictionary, gram: torch.Tensor | None) -> Block:
    """x: explored activations, [n_tokens, d_model]. What is written comes to the host in one
    transfer."""
    x, is_finite = _finite(to_device(x, dictionary.device))
    codes = dictionary.encode(x, gram=gram)
    xhat, sums = dictionary.decode(codes), ReconstructionSums()
    sums.add(x, xhat)
    terms = terms_after(dictionary, x - xhat, codes, gram)
    latents, coefficients, *terms = to_host(codes.latents, codes.coefficients, *terms)
    return Block(is_finite.numpy(), Codes(latents, coefficients), terms, sums)


def _finite(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The finite ones of activations, and which these are, [n_tokens] bool on the host."""
    [is_finite] = to_host(torch.isfinite(x).all(1))
    rows = is_finite.nonzero()[:, 0]
    return x if len(rows) == len(x) else x[to_device(rows, x.device)], is_finite


def _no_room(dictionary: Dictionary) -> str:
    return (
        f"There is no room on the device {dictionary.device} to encode one token with "
        f"{len(dictionary):,} atoms. Choose another device, fewer atoms or a smaller L0."
    )


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


def held_out_measures(
    x: torch.Tensor, dictionary: Dictionary, gram: torch.Tensor | None
) -> dict[str, float | int | None]:
    """What a dictionary is worth on held-out activations, [n_tokens, d_model]: FVU, where there
    are any, of all tokens and without massive activations."""
    x, _ = _finite(to_device(x, dictionary.device))
    [norms] = to_host(x.norm(dim=1))
    is_usual = ~massive(norms, dictionary.median_norm or float(norms.nanmedian()))
    everything, usual = ReconstructionSums(), ReconstructionSums()
    together = tokens_together(dictionary.l0)
    for part, keeps in zip(x.split(together), is_usual.split(together), strict=True):
        xhat = dictionary.decode(dictionary.encode(part, gram=gram))
        everything.add(part, xhat)
        rows = to_device(keeps.nonzero()[:, 0], x.device)
        usual.add(part[rows], xhat[rows])
    return {
        "held_out_tokens": len(x),
        "fvu": None if np.isnan(everything.fvu) else everything.fvu,
        "fvu_without_massive": None if np.isnan(usual.fvu) else usual.fvu,
        "massive_held_out_tokens": int((~is_usual).sum()),
    }
