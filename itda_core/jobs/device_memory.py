"""What a GPU has to hold while a training runs on it, and whether there is room."""

from dataclasses import dataclass

import torch

from itda_core.config import TrainConfig
from itda_core.devices import kind_of
from itda_core.model.built_in import ModelShape
from itda_core.model.data_types import resolved_dtype
from itda_core.model.forward_batches import FORWARD_TOKENS
from itda_core.pursuit.gram import MATCHING_TRAFFIC, gram_bytes, gram_pays, orthogonal_traffic

_LIBRARIES = 2**29
"""What CUDA and its libraries take for themselves, about"""
_BLOCK_ROWS = (8, 3)
"""Vectors of d_model and of the MLP's width that a block holds for each token, about"""
_CHOOSING_COPIES = 4
"""Of the sample while a layer is chosen: as it is, centred, of unit length, without the massive"""
_GRAM_SHARE = 4
"""Above this part of the free memory there is no Gram matrix"""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes that a training needs on a GPU; rough, as the whole estimate."""

    weights: int
    """of the model, in their data type, with embedding and unembedding apart"""
    forward: int
    """of the forward pass that reads most tokens at once"""
    gram: int
    """of the Gram matrix of one layer's atoms; of all layers' where they grow together; 0 where no
    pursuit of the training takes one"""
    choosing: int
    """atoms, and the sample of one layer while it is chosen from"""
    kept: int
    """the sample and the explored activations of all layers, which stay on the device where they
    fit, else lie on the disk"""

    @property
    def needed(self) -> int:
        """Without what the disk can hold. The forward pass is over when a layer is chosen."""
        return self.weights + max(self.forward, self.choosing) + _LIBRARIES

    def least(self, free: int) -> int:
        """What is taken in any case: a Gram matrix only where there is room for it."""
        return self.needed + (self.gram if self.has_gram(free) else 0)

    def has_gram(self, free: int) -> bool:
        """Whether a quarter of what the weights leave of `free` holds the Gram matrix, without
        which the pursuit takes longer."""
        return self.gram <= max(0, free - self.weights) // _GRAM_SHARE

    def fits(self, free: int) -> bool:
        """Whether `free` bytes will do."""
        return self.least(free) <= free


def device_memory(config: TrainConfig, shape: ModelShape, device: str, sample: int) -> DeviceMemory:
    """sample: activations that the selection keeps of each layer."""
    item = resolved_dtype(config.model.dtype, device).itemsize
    weights = shape.block_weights * shape.n_layers + 2 * shape.vocabulary * shape.d_model
    tokens = FORWARD_TOKENS.get(kind_of(device), FORWARD_TOKENS["cpu"])
    d_model, n_layers = shape.d_model, len(config.layers)
    of_block = _BLOCK_ROWS[0] * d_model + _BLOCK_ROWS[1] * shape.intermediate
    together = n_layers if config.selection == "threshold" else 1
    explored = min(config.explored_tokens, config.max_tokens)
    return DeviceMemory(
        weights=item * weights,
        forward=tokens * (item * of_block + 4 * d_model * n_layers),
        gram=together * _gram(config, d_model, torch.device(device)),
        choosing=4 * d_model * (_CHOOSING_COPIES * sample + 2 * together * config.max_atoms),
        kept=4 * d_model * n_layers * (sample + explored),
    )


def _gram(config: TrainConfig, d_model: int, device: torch.device) -> int:
    """Bytes of the Gram matrix; 0 where all pursuits are faster without."""
    is_matching = config.selection == "threshold" or config.pursuit != "orthogonal"
    traffic = MATCHING_TRAFFIC if is_matching else orthogonal_traffic(config.l0)
    pays = gram_pays(d_model, device, traffic)
    return gram_bytes(config.max_atoms, device) if pays else 0
