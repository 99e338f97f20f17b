"""What lies near a latent: other atoms by cosine, and the next tokens that its atom speaks for."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from itda_core.dictionary.dictionary import Dictionary
from itda_core.model.model import Model


@dataclass(frozen=True)
class NextTokens:
    """The next tokens that an atom raises and lowers most, directly."""

    promoted: pd.DataFrame
    """token_id, token, score: the largest first"""
    suppressed: pd.DataFrame
    """the smallest first"""


def cosines_to(dictionary: Dictionary, latent: int) -> torch.Tensor:
    """The cosine of every atom to a latent's, [n_latents], on the host. Atoms are unit vectors, so
    one product has them all."""
    return (dictionary.atoms @ dictionary.atoms[latent]).cpu()


def nearest_atoms(dictionary: Dictionary, latent: int, count: int) -> pd.DataFrame:
    """The atoms with the largest |cosine| to a latent's: latent, cosine, and the source's."""
    cosines = cosines_to(dictionary, latent)
    sizes = cosines.abs()
    sizes[latent] = -1
    nearest = sizes.topk(min(count, len(cosines) - 1)).indices
    table = dictionary.sources.iloc[nearest.tolist()].reset_index(drop=True)
    table.insert(1, "cosine", cosines[nearest].numpy())
    return table


def nearest_to_any(
    dictionary: Dictionary, latents: Sequence[int], left_out: Sequence[int], count: int
) -> pd.DataFrame:
    """The atoms with the largest cosine to any of some latents', of those that point their way:
    latent, cosine, and nearest, which of the latents it is to. left_out: these and those are none
    of them."""
    if not len(latents):
        return pd.DataFrame({"latent": [], "cosine": [], "nearest": []})
    given = torch.as_tensor(latents, dtype=torch.int64)
    cosines = (dictionary.atoms @ dictionary.atoms[given].T).cpu()
    largest, which = cosines.max(1)
    largest[torch.as_tensor([*latents, *left_out], dtype=torch.int64)] = -1
    nearest = largest.topk(min(count, len(largest))).indices
    nearest = nearest[largest[nearest] > 0]
    return pd.DataFrame(
        {
            "latent": nearest.numpy(),
            "cosine": largest[nearest].numpy(),
            "nearest": given[which[nearest]].numpy(),
        }
    )


def next_tokens(model: Model, dictionary: Dictionary, latent: int, count: int) -> NextTokens:
    """The atom through the model's final norm and unembedding (the "logit lens"), less the mean of
    its scores. Blocks in between change what it does; this is its direct way only.

    Raises ModelError for encoders.
    """
    scores = model.unembed(dictionary.atoms[latent][None])[0].cpu()
    scores = scores - scores.mean()
    return NextTokens(
        _ends(model, scores, count, largest=True), _ends(model, scores, count, largest=False)
    )


def _ends(model: Model, scores: torch.Tensor, count: int, largest: bool) -> pd.DataFrame:
    token_ids = scores.topk(min(count, len(scores)), largest=largest).indices.tolist()
    tokens = [model.tokenizer.decode([token_id]) for token_id in token_ids]
    return pd.DataFrame(
        {"token_id": token_ids, "token": tokens, "score": scores[token_ids].numpy()}
    )
