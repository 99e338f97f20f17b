"""Which rows of a batch of texts are kept as activations, and where each goes."""

import torch

from itda_core.model.tokens import Tokens


class KeptRows:
    """The tokens of a batch whose activations are kept: no padding, and no first position where
    that is left out."""

    def __init__(self, tokens: Tokens, skip_first: bool):
        self._is_kept = tokens.mask.clone()
        if skip_first:
            self._is_kept[:, :1] = False
        prompts, positions = self._is_kept.nonzero(as_tuple=True)
        self.prompts, self.positions = prompts.numpy(), positions.numpy()
        """[n_kept_tokens] int64, as those of `Activations`"""
        self.counts = self._is_kept.sum(1)
        """Rows of each text that are kept, [n_texts] int64"""
        self._starts = self.counts.cumsum(0) - self.counts

    def __len__(self) -> int:
        return len(self.prompts)

    def places(self, texts) -> torch.Tensor:
        """Where the rows of some texts go, [n] int64. texts: their numbers in the batch."""
        starts, counts = self._starts[texts], self.counts[texts]
        ends = counts.cumsum(0)
        first = (starts - ends + counts).repeat_interleave(counts)
        return torch.arange(int(counts.sum()), dtype=torch.int64) + first

    def rows(self, texts, width: int) -> torch.Tensor:
        """Which rows of the hidden states of these texts are kept, [n] int64: of the states as
        [n_texts * width, d_model]."""
        return self._is_kept[texts][:, :width].flatten().nonzero()[:, 0]
