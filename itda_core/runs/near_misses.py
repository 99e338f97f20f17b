"""Near misses of a latent: the tokens on which a pursuit of one more step would take it.

Kept as nearly.parquet in the run's directory. Autoencoders and runs of earlier versions have none.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from itda_core.dictionary.dictionary import Dictionary
from itda_core.files.disk_errors import why_unreadable
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.kernel_matching import ROUNDING
from itda_core.pursuit.matching import matching_pursuit
from itda_core.runs.run import NEAR_MISS_FILE, Run
from itda_core.tables import as_frame, read_table, write_table

_READ = pa.schema(
    [("prompt_id", pa.string()), ("position", pa.int32()), ("coefficient", pa.float32())]
)


class NearMisses:
    """The next term of every token, gathered while a run's codes are written.

    Its room is taken at once: small arrays that stay between the large ones that come and go with
    each block would keep the system's memory in pieces, and a training would grow with its tokens.
    """

    def __init__(self, n_tokens: int):
        """n_tokens: that come, at most."""
        self._rows = {
            name: np.empty(n_tokens, np.float32 if name == "coefficient" else np.int32)
            for name in ("latent", "prompt", "position", "coefficient")
        }
        self._count, self._has_terms = 0, False

    def add(
        self, terms: Sequence[torch.Tensor], prompts: np.ndarray, positions: np.ndarray
    ) -> None:
        """terms: what `terms_after` gave, on the host; prompts: number of each token's prompt;
        positions: its index there."""
        if not terms:
            return
        self._has_terms = True
        latents, coefficients, is_term = (term.numpy() for term in terms)
        found = (latents, prompts, positions, coefficients)
        first, self._count = self._count, self._count + int(is_term.sum())
        for rows, values in zip(self._rows.values(), found, strict=True):
            rows[first : self._count] = values[is_term]

    def save(self, folder: Path, prompt_ids: pa.Array) -> None:
        """Write the file, each latent's rows together with the largest |coefficient| first."""
        if not self._has_terms:
            return
        latents, prompts, positions, coefficients = (
            rows[: self._count] for rows in self._rows.values()
        )
        order = np.lexsort((-np.abs(coefficients), latents))
        columns = {
            "latent": pa.array(latents[order]),
            "prompt_id": pa.DictionaryArray.from_arrays(pa.array(prompts[order]), prompt_ids),
            "position": pa.array(positions[order]),
            "coefficient": pa.array(coefficients[order]),
        }
        write_table(pa.table(columns), folder / NEAR_MISS_FILE, "zstd")


def terms_after(
    dictionary: Dictionary, left: torch.Tensor, codes: Codes, gram: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """What `next_terms` gives; nothing for an autoencoder, which takes no steps. left: what the
    codes leave of the activations, [n_tokens, d_model]; gram: what `dictionary.gram()` gives."""
    if not dictionary.coder.takes_steps:
        return ()
    return next_terms(left, codes, dictionary.atoms, gram)


def next_terms(
    left: torch.Tensor, codes: Codes, atoms: torch.Tensor, gram: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What one more step of matching pursuit would take of what the codes leave.

    left: [n_tokens, d_model]. Returns latents [n_tokens] int64, coefficients [n_tokens] float32,
    and which of them are terms, [n_tokens] bool: not where only rounding is left, nor where the
    token has that latent already.
    """
    step = matching_pursuit(left, atoms, 1, gram=gram)
    latents, coefficients = step.latents[:, 0], step.coefficients[:, 0]
    is_new = (codes.latents != latents[:, None]).all(1)
    largest = codes.coefficients.abs().amax(1)
    return latents, coefficients, is_new & (coefficients.abs() > ROUNDING * largest)


def near_misses(run: Run, latent: int) -> pd.DataFrame | None:
    """A latent's near misses, the nearest first: prompt_id, position and
    coefficient. None where the run does not tell. Raises RunError where the file is damaged."""
    path = run.directory / NEAR_MISS_FILE
    if not path.exists():
        return None
    try:
        table = read_table(path, columns=["latent", *_READ.names])
        its_own = table.filter(pc.equal(table["latent"], latent))
        return as_frame(its_own.select(_READ.names).cast(_READ))
    except Exception as error:  # whatever the file holds
        raise why_unreadable(path, error, "Delete it: the run is whole without it.") from error
