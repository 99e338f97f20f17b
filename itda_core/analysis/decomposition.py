"""One text taken apart: each token's terms in the order of pursuit, and what they leave."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from itda_core.config import TrainConfig
from itda_core.devices import full_memory_as_sentence
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.evaluation.metrics import used_terms
from itda_core.model.model import Activations, Model
from itda_core.model.steps_of_work import Step, last_value
from itda_core.model.tokens import Tokens
from itda_core.pursuit.codes import Codes

NO_ROOM_FOR_TEXT = "Take a shorter text, free some there, or choose another device."
"""What to do where a device's memory is full"""


@dataclass(frozen=True)
class Decomposition:
    """A text's tokens as sums of latents; one row of `codes` for each decomposed token. All of it
    is on the host."""

    text: str
    tokens: Tokens
    """the one text's tokens, those left out included"""
    positions: np.ndarray
    """[n_decomposed] int64, the token position of each row"""
    codes: Codes
    residuals: np.ndarray
    """[n_decomposed, l0 + 1] float32: ‖x − x̂‖ after each step, ‖x − offset‖ first"""
    sources: pd.DataFrame
    """the dictionary's sources"""

    @property
    def shares_left(self) -> np.ndarray:
        """‖x − x̂‖² / ‖x − offset‖² of each row after the last step, [n_decomposed]; in [0, 1] for
        pursuits."""
        squares = np.square(self.residuals.astype(np.float64))
        return squares[:, -1] / np.maximum(squares[:, 0], 1e-30)

    @property
    def counts(self) -> np.ndarray:
        """Terms of each row, [n_decomposed] int64; fewer than L0 where a budget or an autoencoder
        gives a token fewer, or where it is explained whole."""
        return used_terms(self.codes).sum(1).numpy()

    def explained_worst(self, count: int) -> np.ndarray:
        """Rows of the tokens of which the largest share is left, the worst first, [≤ count] int64;
        of equal shares the token that comes first."""
        return np.argsort(-self.shares_left, kind="stable")[:count]

    @property
    def is_cut(self) -> bool:
        """Whether the text goes on after its last token."""
        return bool(self.text[int(self.tokens.spans[0, :, 1].max()) :].strip())

    def prefix(self, l0: int) -> "Decomposition":
        """The decomposition of only `l0` terms a token: the first steps, nothing pursued anew."""
        return dataclasses.replace(
            self, codes=self.codes.prefix(l0), residuals=self.residuals[:, : l0 + 1]
        )

    def spans(self) -> list[tuple[int, int]]:
        """The characters of every token, those left out included."""
        return [tuple(span) for span in self.tokens.spans[0].tolist()]

    def token_text(self, position: int) -> str:
        return self.tokens.token_text(0, position)

    def terms(self, row: int) -> pd.DataFrame:
        """The steps of one token's pursuit in their order: step (0 first), latent, coefficient,
        share_left, and the source's columns.

        The coefficients are those of the whole sum; share_left is what so many steps leave, with
        coefficients of their own where the pursuit fits them together.
        """
        return self._terms(np.array([row])).drop(columns="row")

    def table(self) -> pd.DataFrame:
        """All terms of all tokens: position, token, and the columns of `terms`."""
        terms = self._terms(np.arange(len(self.positions)))
        tokens = np.array([self.token_text(position) for position in self.positions], object)
        rows = terms.pop("row")
        terms.insert(0, "position", self.positions[rows])
        terms.insert(1, "token", tokens[rows])
        return terms.reset_index(drop=True)

    def _terms(self, rows: np.ndarray) -> pd.DataFrame:
        """The terms of some rows, one after another, with a column `row`."""
        squares = np.square(self.residuals[rows].astype(np.float64))
        latents = self.codes.latents[rows].numpy()
        n_rows, l0 = latents.shape
        steps = pd.DataFrame(
            {
                "row": np.repeat(rows, l0),
                "step": np.tile(np.arange(l0), n_rows),
                "latent": latents.ravel(),
                "coefficient": self.codes.coefficients[rows].numpy().ravel(),
                "share_left": (squares[:, 1:] / np.maximum(squares[:, :1], 1e-30)).ravel(),
            }
        )
        origin = self.sources.drop(columns="latent").iloc[latents.ravel()].reset_index(drop=True)
        steps = pd.concat([steps, origin.add_prefix("source_")], axis=1)
        return steps[used_terms(self.codes)[rows].numpy().ravel()]

    def to_records(self) -> list[dict[str, Any]]:
        """One record a token: position, token, norm (‖x − offset‖), share_left, and its terms."""
        return [
            {
                "position": position,
                "token": self.token_text(position),
                "norm": float(self.residuals[row, 0]),
                "share_left": float(self.shares_left[row]),
                "terms": self.terms(row).to_dict("records"),
            }
            for row, position in enumerate(self.positions.tolist())
        ]


def decompose(
    dictionary: Dictionary, model: Model, text: str, config: TrainConfig
) -> Decomposition:
    """Decompose every token of `text` but those that training leaves out.

    The text is cut to 1,024 tokens, or to the model's context length where that is shorter; see
    `is_cut`. Computed on the model's device. Raises InputError for a text of fewer than two tokens,
    and where memory is full.
    """
    return last_value(decompose_steps(dictionary, model, text, config))


def decompose_steps(
    dictionary: Dictionary, model: Model, text: str, config: TrainConfig
) -> Iterator[Step[Decomposition]]:
    """`decompose`, which tells how far it is while a model is read block by block; the last step
    has the value."""
    layer, model = dictionary.hook_point.layer, model.at(dictionary.hook_point.site)
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        tokens = model.tokenize([text])
        for step in model.capture_each([tokens], [layer], config.skip_first):
            if step.value is None:
                yield Step(step.fraction)
            else:
                activations = step.value
        yield Step(1.0, 0, _decomposed(dictionary.to(model.device), text, tokens, activations))


def _decomposed(
    dictionary: Dictionary, text: str, tokens: Tokens, activations: Activations
) -> Decomposition:
    x = activations[dictionary.hook_point.layer]
    if not len(x):
        raise InputError("The text has fewer than two tokens. Type a few words more.")
    if not torch.isfinite(x).all():
        raise InputError("The model gives activations that are not finite for this text.")
    codes = dictionary.encode(x)
    return Decomposition(
        text=text,
        tokens=tokens,
        positions=activations.positions,
        codes=codes.to("cpu"),
        residuals=dictionary.coder.residual_norms(x, codes).cpu().numpy(),
        sources=dictionary.sources,
    )
