"""The model as the machine that starts a training over many sees it: what it is, and no weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from itda_core.errors import InputError
from itda_core.model.context import check_ids, check_layers, embedding_rows
from itda_core.model.model import Activations, Model
from itda_core.model.tokens import TokenizedText, Tokens, tokenized_texts


@dataclass(frozen=True)
class FarModel:
    """What a worker says of the model that it holds or reads block by block, and its tokenizer: an
    `ActivationSource` that plans a training and captures nothing itself."""

    name: str
    digest: str
    identity: str
    dtype: str
    d_model: int
    n_layers: int
    context_length: int
    tokenizer_digest: str
    put_in: dict[str, list[str]]
    n_tokens_known: int | None
    """How many tokens it has embeddings for; None where it has no table of them"""
    is_swept: bool
    device_type: str
    """Where it is, such as "cuda" """
    site: str
    tokenizer: Any = field(repr=False)

    @property
    def device(self) -> torch.device:
        """Of the machine that starts the training."""
        return torch.device("cpu")

    def at(self, site: str) -> "FarModel":
        """Itself: its workers have tried the site of the training."""
        if site != self.site:
            raise InputError(f"The workers read {self.site} of {self.name}, and not {site}.")
        return self

    def check_layers(self, layers: Sequence[int]) -> None:
        check_layers(layers, self.n_layers, self.name)

    def tokenized(self, texts: Sequence[str], longest: int) -> list[TokenizedText]:
        """As `Model.tokenized` gives them."""
        found = tokenized_texts(self.tokenizer, texts, longest)
        ids = (text.ids for text in found)
        check_ids(ids, self.n_tokens_known, self.tokenizer, self.name)
        return found

    def capture(
        self,
        tokens: Tokens,  # noqa: ARG002
        layers: Sequence[int],  # noqa: ARG002
        skip_first: bool = True,  # noqa: ARG002
        to: torch.device | str | None = None,  # noqa: ARG002
    ) -> Activations:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.name} is on the workers of a cluster, and not on this machine.")


def far_model(model: Model) -> FarModel:
    """What there is to say of a model."""
    return FarModel(
        name=model.name,
        digest=model.digest,
        identity=model.identity,
        dtype=model.dtype,
        d_model=model.d_model,
        n_layers=model.n_layers,
        context_length=model.context_length,
        tokenizer_digest=model.tokenizer_digest,
        put_in=model.put_in,
        n_tokens_known=embedding_rows(model.module),
        is_swept=model.is_swept,
        device_type=model.device.type,
        site=model.site,
        tokenizer=model.tokenizer,
    )
