"""Whether a saved model can be loaded again and used on texts."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from tools.model_types.listing import ModelType

TEXTS = ("The ship left the harbour.", "In the evening the wind had turned, as he said")


class UnusableModel(Exception):
    """A model that was made, and doesn't do."""


def try_forward(one: ModelType, folder: Path) -> torch.Tensor:
    """Logits of two padded texts, [texts, tokens, vocabulary], or the last hidden states.

    Raises UnusableModel where weights are missing, or values are not finite or the same for all
    tokens.
    """
    model, loading = one.auto_class.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[what]:
            raise UnusableModel(f"loading says {what}: {sorted(loading[what])[:3]}")
    values = _values(model.eval(), folder)
    if not torch.isfinite(values).all():
        bad = (~torch.isfinite(values)).float().mean()
        raise UnusableModel(f"{bad:.0%} of the values are not finite")
    if (values[0, 1:3] - values[0, :2]).abs().max() < 1e-3:
        raise UnusableModel("all tokens give the same")
    return values


def _values(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    inputs = dict(
        AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, return_tensors="pt")
    )
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        outputs = model(**inputs)
    return outputs["logits"] if "logits" in outputs else outputs[0]
