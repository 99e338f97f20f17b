"""Writes a folder of activations: parts, tokens and prompts in any order, the index last.

A part depends on no other, so that several processes can write parts of one folder; whoever knows
them all writes the index, and only then is the folder whole.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from itda_core.activations.folder_index import PROMPTS_FILE, TOKENS_FILE
from itda_core.corpus.corpus import Prompt
from itda_core.errors import InputError
from itda_core.files.writing import write_atomically
from itda_core.model.tokens import TokenizedText, word_table
from itda_core.settings import RESID_POST
from itda_core.tables import write_table

_CHECKSUM = "crc32"
STORED_DTYPES = ("auto", "float32", "bfloat16", "float16")
TOKEN_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.dictionary(pa.int32(), pa.string())),
        ("position", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("token", pa.dictionary(pa.int32(), pa.string())),
        ("word", pa.int32()),
    ]
)
PROMPT_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("held_out", pa.bool_()),
        ("cut", pa.bool_()),
        ("first_start", pa.int32()),
        ("first_end", pa.int32()),
    ]
)


def tensor_name(layer: int, site: str = RESID_POST) -> str:
    """What the activations of a place are called in each part: "15.resid_post"."""
    return f"{layer}.{site}"


def part_file(number: int, layer: int, site: str = RESID_POST) -> str:
    """Where this project puts the rows of one layer of a part."""
    return f"part-{number:05d}.{tensor_name(layer, site)}.safetensors"


def write_rows(
    folder: Path, file: str, rows: Mapping[str, torch.Tensor], stored: str = "auto",
    model: str = "", summed: bool = False,
) -> None:  # fmt: skip
    """Write activations of a part, whole or not at all.

    rows: by `tensor_name`, [n_rows, d_model] float32 each, on any device. stored: the data type on
    disk; auto is that of the model, `model`, where it holds the same numbers, else float32. Raises
    InputError where a type can't hold a number at all. summed: whether the file says a checksum of
    its tensors, as `is_as_summed` checks it.
    """
    kept = {name: _stored(x.detach().cpu(), stored, model) for name, x in rows.items()}
    metadata = {_CHECKSUM: str(_checksum(kept))} if summed else None
    write_atomically(folder / file, save(kept, metadata))


def is_as_summed(path: Path) -> bool:
    """Whether a file of `write_rows` holds what was written; one that says no checksum does as far
    as it can be read. Raises OSError where the disk or its rights are in the way."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return False
    return said in (None, {_CHECKSUM: str(_checksum(tensors))})


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    """CRC-32 of what they are called and hold, in the order of the names: BLAKE2b takes three times
    as long."""
    found = 0
    for name, values in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {values.dtype} {[*values.shape]}".encode(), found)
        found = zlib.crc32(values.contiguous().view(torch.uint8).numpy(), found)
    return found


def _stored(x: torch.Tensor, stored: str, model: str) -> torch.Tensor:
    """x: [n_rows, d_model] float32."""
    name = model if stored == "auto" and model in STORED_DTYPES[1:] else stored
    kept = x.to(getattr(torch, "float32" if name == "auto" else name)).contiguous()
    if stored == "auto" and not torch.equal(kept.float().nan_to_num(), x.nan_to_num()):
        return x.contiguous()
    if bool((torch.isfinite(x) & ~torch.isfinite(kept)).any()):
        raise InputError(
            f"{name} can't hold some of these activations: the largest is "
            f"{float(x.nan_to_num().abs().max()):.3g}. Keep them in bfloat16 or float32."
        )
    return kept


def write_tokens(
    folder: Path, prompts: Sequence[tuple[str, TokenizedText]], names, skip_first: bool,
    file: str = TOKENS_FILE,
) -> None:  # fmt: skip
    """Write what each row of some parts is, in the order of the rows.

    prompts: id and tokens of each; names: what the tokenizer calls a token, by its id
    (`convert_ids_to_tokens`).
    """
    tables = [_token_table(name, text, names, skip_first) for name, text in prompts]
    table = pa.concat_tables(tables) if tables else TOKEN_SCHEMA.empty_table()
    _write_table(folder / file, table.unify_dictionaries())


def _token_table(name: str, text: TokenizedText, names, skip_first: bool) -> pa.Table:
    positions = range(int(skip_first), len(text))
    spans = text.spans[int(skip_first) :].tolist()
    ids = text.ids[int(skip_first) :].tolist()
    words = word_table(text.text)
    tokens = [
        text.text[start:end] or names(number)
        for (start, end), number in zip(spans, ids, strict=True)
    ]
    begins = [-1 if start == end else int(words[start]) for start, end in spans]
    columns = {
        "prompt_id": [name] * len(spans),
        "position": list(positions),
        "start": [start for start, _ in spans],
        "end": [end for _, end in spans],
        "token": tokens,
        "word": begins,
    }
    return pa.table(columns, schema=TOKEN_SCHEMA)


def prompt_rows(
    prompts: Iterable[Prompt], texts: Mapping[str, TokenizedText], cut: Iterable[str],
    held_out: bool, skip_first: bool,
) -> pd.DataFrame:  # fmt: skip
    """Rows of prompts.parquet. texts: the tokens of each prompt that is read, by its id; cut: ids
    of those that are longer than the context length."""
    cut = set(cut)

    def row(prompt: Prompt) -> dict:
        text = texts.get(prompt.prompt_id)
        first = text.spans[0].tolist() if text is not None and skip_first else (None, None)
        return {
            "prompt_id": prompt.prompt_id,
            "text": prompt.text,
            "title": prompt.title,
            "held_out": held_out,
            "cut": prompt.prompt_id in cut,
            "first_start": first[0],
            "first_end": first[1],
        }

    return pd.DataFrame([row(prompt) for prompt in prompts], columns=PROMPT_SCHEMA.names)


def write_prompts(folder: Path, tables: Sequence[pd.DataFrame]) -> None:
    """Write prompts.parquet: the training prompts in the order in which they are read, then those
    that are held out, also in theirs."""
    parts = [pa.Table.from_pandas(table, PROMPT_SCHEMA, preserve_index=False) for table in tables]
    _write_table(folder / PROMPTS_FILE, pa.concat_tables(parts))


def _write_table(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    write_table(table, sink, "zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
