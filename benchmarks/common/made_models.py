"""Models, texts and activations made up on the spot, for machines that have no network.

Weights are random, so that nothing can be said of quality; time and memory are those of a trained
model of the same shape. Words are numbered, w0 w1 w2 …, a token each, and drawn as often as words
of a language are (Zipf).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from itda_core.model.model import Model

_UNKNOWN, _ZIPF_SHIFT = "<unk>", 2.7
WORDS = 8_192
"""Words, at most, that texts are made of."""


@dataclass(frozen=True)
class Shape:
    """Of a model of Llama's kind."""

    name: str
    d_model: int
    n_layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    vocabulary: int
    layers: tuple[int, ...]
    """that are captured, the last of them well before the model's end"""
    tied: bool = True
    """Whether the unembedding is the embedding"""

    @property
    def weights(self) -> int:
        """Numbers that the model consists of."""
        return sum(weight.numel() for weight in _module(self, "meta", torch.bfloat16).parameters())


SMOLLM2 = Shape("SmolLM2-135M's shape", 576, 30, 9, 3, 1_536, 49_152, (7, 15, 22))
LLAMA3_8B = Shape("Llama-3-8B's shape", 4_096, 32, 32, 8, 14_336, 128_256, (8, 16, 24), tied=False)
TINY = Shape("a tiny shape", 32, 4, 2, 1, 64, 512, (0, 1, 2))


def made_model(shape: Shape, dtype: torch.dtype, device: torch.device) -> Model:
    """A model with random weights, drawn where it is to be: the host never holds them."""
    module = _module(shape, device, dtype)
    return Model(shape.name, module, made_tokenizer(shape), "made", "model.layers")


def made_tokenizer(shape: Shape):
    """A token for each word."""
    names = [_UNKNOWN, *(f"w{number}" for number in range(_n_words(shape)))]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=_UNKNOWN, pad_token=_UNKNOWN
    )


def write_texts(path: Path, shape: Shape, n_texts: int, length: int, seed: int = 0) -> Path:
    """A .txt of texts of `length` words each, a paragraph a text."""
    numbers = np.arange(_n_words(shape))
    chance = 1 / (numbers + _ZIPF_SHIFT)
    drawn = np.random.default_rng(seed).choice(numbers, (n_texts, length), p=chance / chance.sum())
    texts = (" ".join(f"w{number}" for number in text) for text in drawn)
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


def made_activations(count: int, d_model: int, device: torch.device, seed: int = 0) -> torch.Tensor:
    """[count, d_model] float32 that are as uneven as real ones: the i-th principal component has a
    variance of 1 / i, and a mean as long as the rest is added.

    Drawn on the host, so that every device gets the same.
    """
    random = torch.Generator().manual_seed(seed)
    turned, _ = torch.linalg.qr(torch.randn(d_model, d_model, generator=random))
    sizes = torch.arange(1, d_model + 1, dtype=torch.float32).rsqrt()
    mean = torch.nn.functional.normalize(torch.randn(d_model, generator=random), dim=0)
    x = torch.randn(count, d_model, generator=random) * sizes @ turned.T
    return (x + sizes.norm() * mean).to(device)


def _n_words(shape: Shape) -> int:
    return min(WORDS, shape.vocabulary - 1)


def _module(shape: Shape, device: torch.device | str, dtype: torch.dtype):
    config = transformers.LlamaConfig(
        hidden_size=shape.d_model,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=2_048,
        tie_word_embeddings=shape.tied,
    )
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
