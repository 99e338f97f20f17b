"""What a training asks of whatever its activations come from: a model, or a folder of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from itda_core.model.model import Activations
from itda_core.model.tokens import TokenizedText, Tokens


class ActivationSource(Protocol):
    """A model, in memory or not, or activations of it that were captured before."""

    name: str
    """the model's"""
    digest: str | None
    """of the model; None where it is not known"""
    tokenizer: Any
    d_model: int

    @property
    def identity(self) -> str:
        """Names all that the activations depend on but the texts."""
        ...

    @property
    def n_layers(self) -> int: ...

    @property
    def dtype(self) -> str:
        """That the model computes in, such as "float32"."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the activations come to be."""
        ...

    @property
    def context_length(self) -> int: ...

    @property
    def tokenizer_digest(self) -> str: ...

    @property
    def put_in(self) -> dict[str, list[str]]:
        """The names of the tokens that the tokenizer puts "before" and "after" each text."""
        ...

    def at(self, site: str) -> "ActivationSource":
        """The same, whose `capture` takes activations at another place in the blocks."""
        ...

    def check_layers(self, layers: Sequence[int]) -> None: ...

    def tokenized(self, texts: Sequence[str], longest: int) -> list[TokenizedText]: ...

    def capture(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        skip_first: bool = True,
        to: torch.device | str | None = None,
    ) -> Activations: ...
