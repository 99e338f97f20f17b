"""The texts that models read to be compared, and which of their tokens compare."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itda_core.activations.alignment import RowNames, row_names
from itda_core.model.model import Activations, Model
from itda_core.model.steps_of_work import Step
from itda_core.model.tokens import Tokens

_PROMPTS = 32
"""Prompts that go through a model together"""


@dataclass(frozen=True)
class ComparedTexts:
    """The texts that a model reads, and which of their tokens compare."""

    batches: list[Tokens]
    compares: list[np.ndarray]
    """[n_texts, longest] bool of each batch"""
    names: RowNames
    """what the tokens that compare are called, in all batches"""
    words: int
    """how many of them end one"""

    @classmethod
    def of(
        cls, model: Model, texts: Sequence[str], context_length: int, max_tokens: int
    ) -> "ComparedTexts":
        """As many texts as give `max_tokens` ends of words, of which there are fewer than of
        tokens, or all."""
        batches, compares, names, words = [], [], [], 0
        for first in range(0, len(texts), _PROMPTS):
            some = texts[first : first + _PROMPTS]
            batches.append(model.tokenize(some, context_length))
            which, of_batch = row_names(batches[-1], first)
            compares.append(which)
            names.append(of_batch)
            words += of_batch.count("word")
            if words >= max_tokens:
                break
        return cls(batches, compares, RowNames.joined(names), words)

    def compared(self, step: Step[Activations]) -> dict[int, torch.Tensor]:
        """The rows that compare by layer, in main memory; none where a step has only progress."""
        if step.value is None:
            return {}
        captured, compares = step.value, self.compares[step.number]
        rows = torch.from_numpy(compares[captured.prompts, captured.positions])
        return {layer: x.cpu()[rows] for layer, x in captured.items()}
