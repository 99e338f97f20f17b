"""What writes activations as codes: a pursuit, or the encoder of an imported autoencoder.

Both do the same for a dictionary, so that nothing else asks which of them it has.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from itda_core.dictionary.sae_encoder import SaeEncoder
from itda_core.pursuit.codes import Codes, residual_norms
from itda_core.pursuit.gram import MATCHING_TRAFFIC, affordable_gram, orthogonal_traffic
from itda_core.pursuit.orthogonal import PURSUITS


class Encoder(Protocol):
    """From raw activations to codes on a dictionary's atoms."""

    kind: str
    """ "itda" where atoms are activations of tokens, "sae" for an autoencoder"""
    takes_steps: bool
    """whether one step more would take one term more"""

    @property
    def name(self) -> str:
        """As tables and cards call it: "orthogonal pursuit", "topk"."""
        ...

    def encode(
        self, x: torch.Tensor, l0: int | None = None, gram: torch.Tensor | None = None
    ) -> Codes:
        """x: raw activations, [n_tokens, d_model]; l0: terms of a token at most, by default the
        dictionary's; gram: what `gram()` gives."""
        ...

    def gram(self) -> torch.Tensor | None:
        """What `encode` takes as `gram`; None where it does without."""
        ...

    def residual_norms(self, x: torch.Tensor, codes: Codes) -> torch.Tensor:
        """‖x − x̂‖ after each term, [n_tokens, l0 + 1] float32, of no term first."""
        ...


@dataclass(frozen=True)
class PursuitEncoder:
    """A pursuit on a dictionary's atoms, after its offset is taken off."""

    atoms: torch.Tensor
    offset: torch.Tensor
    pursuit: str
    l0: int
    min_projection: float
    kind = "itda"
    takes_steps = True

    @property
    def name(self) -> str:
        return f"{self.pursuit} pursuit"

    def encode(
        self, x: torch.Tensor, l0: int | None = None, gram: torch.Tensor | None = None
    ) -> Codes:
        ends = {"min_projection": self.min_projection} if self.min_projection else {}
        centred, terms = x.float() - self.offset, self.l0 if l0 is None else l0
        return PURSUITS[self.pursuit](centred, self.atoms, terms, gram=gram, **ends)

    def gram(self) -> torch.Tensor | None:
        is_orthogonal = self.pursuit == "orthogonal"
        traffic = orthogonal_traffic(self.l0) if is_orthogonal else MATCHING_TRAFFIC
        return affordable_gram(self.atoms, traffic=traffic)

    def residual_norms(self, x: torch.Tensor, codes: Codes) -> torch.Tensor:
        return residual_norms(x - self.offset, codes)


@dataclass(frozen=True)
class AutoencoderEncoder:
    """An autoencoder's own encoder, on unit atoms."""

    atoms: torch.Tensor
    offset: torch.Tensor
    encoder: SaeEncoder
    kind = "sae"
    takes_steps = False

    @property
    def name(self) -> str:
        return self.encoder.architecture

    def encode(
        self,
        x: torch.Tensor,
        l0: int | None = None,
        gram: torch.Tensor | None = None,  # noqa: ARG002
    ) -> Codes:
        return self.encoder.encode(x, l0)

    def gram(self) -> None:
        return None

    def residual_norms(self, x: torch.Tensor, codes: Codes) -> torch.Tensor:
        """Its terms are no projections: each is subtracted."""
        residual = x - self.offset
        norms = [residual.norm(dim=1)]
        for latents, coefficients in zip(codes.latents.T, codes.coefficients.T, strict=True):
            residual = residual - coefficients[:, None] * self.atoms[latents]
            norms.append(residual.norm(dim=1))
        return torch.stack(norms, dim=1)
