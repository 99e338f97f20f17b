"""Steering: a latent's atom is added to a layer's activations while the model writes on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itda_core.analysis.surprise import log_probabilities
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError, ModelError
from itda_core.model.model import Model
from itda_core.model.steps import Steps
from itda_core.model.steps_of_work import last_value

LONGEST = 200
"""Tokens that may be written at once"""
NGRAM = 4
"""Tokens of a sequence that counts as repeated"""
_LOOPS_FROM = 0.5
"""Share of repeated sequences from which a text loops"""
_LOOPS_SHARE, _LOOPS_LEAST, _LOOPS_ENOUGH = 0.25, 4, 12
"""A text also loops where so much of it, and at least and at most so many tokens, stand right
behind themselves: in 20 tokens the share of repeated sequences is hardly ever a half"""


@dataclass(frozen=True)
class Writing:
    """How a text goes on."""

    max_tokens: int = 40
    temperature: float = 0.0
    """0 takes the most likely token each time"""
    seed: int = 0
    """of what is drawn, with a temperature above 0"""

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= LONGEST:
            raise InputError(f"max_tokens must be from 1 to {LONGEST}, got {self.max_tokens}.")
        if self.temperature < 0:
            raise InputError(f"temperature must be at least 0, got {self.temperature}.")


@dataclass(frozen=True)
class WrittenToken:
    """One token that the model wrote."""

    token_id: int
    text: str
    """what it adds to the text; empty while a character is not complete"""
    log_probability: float
    """of the token before the temperature, in nats"""


def steering_vector(
    dictionary: Dictionary, latent: int, strength: float, norm: float
) -> torch.Tensor:
    """strength × norm × atom, [d_model], on the dictionary's device. norm: of a usual activation at
    the layer, so that strength counts in its units. Raises InputError for a latent that there is
    not."""
    if not 0 <= latent < len(dictionary.atoms):
        raise InputError(
            f"There is no latent {latent}: they go from 0 to {len(dictionary.atoms) - 1}."
        )
    return strength * norm * dictionary.atoms[latent]


def steering_sum(
    dictionary: Dictionary, weights: Mapping[int, float], strength: float, norm: float
) -> torch.Tensor:
    """strength × norm × Σ weight · atom, [d_model]: several latents at once, as `steering_vector`.
    weights: by latent. Raises InputError for a latent that there is not, and where there is none.
    """
    if not weights:
        raise InputError("No latent is given to steer with. Choose at least one.")
    return sum(
        weight * steering_vector(dictionary, latent, strength, norm)
        for latent, weight in weights.items()
    )


def judged(
    model: Model, text: str, writing: Writing, written: Sequence[WrittenToken]
) -> np.ndarray:
    """log p of each written token by the model as it is, given `text` and those written before it,
    [n] float64, nats: what steering breaks down shows here, while the steered model finds its own
    repetitions likely. writing: as the text was written with, which says how much of it was read.
    Raises ModelError where the model predicts no next tokens.
    """
    before = _read_ids(model, text, writing)
    ids = torch.tensor([[token.token_id for token in written]], dtype=torch.int64)
    whole, n_read = torch.cat([before, ids], 1), before.shape[1]
    model.abilities.require(model.name, "next_tokens")
    logits = model.run(whole, torch.ones_like(whole), use_cache=False).logits[0].float()
    known = log_probabilities(logits[n_read - 1 : -1], whole[0, n_read:])
    return known.double().numpy()


def perplexity(known: np.ndarray) -> float:
    """exp(−mean log p) of some tokens; NaN for none. known: log p of each, nats."""
    return float(np.exp(-known.mean())) if len(known) else float("nan")


def repetition(ids: Sequence[int], n: int = NGRAM) -> float:
    """How much of a text repeats itself: 1 − different n-grams / n-grams, in [0, 1]; 0 where no
    token sequence of length n comes twice, NaN for fewer than n tokens.

    This is seq-rep-n of Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training".
    ids: of the tokens of one text.
    """
    grams = [tuple(ids[first : first + n]) for first in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")


def at_once(ids: Sequence[int]) -> int:
    """The longest stretch that a text repeats at once: how many tokens in a row are each the one
    that stands p before it, for any p up to that many, so that p tokens come twice at least; 0
    where none does. "a b a b a" has 3, of p = 2. ids: of the tokens of one text, [n]."""
    longest = 0
    for period in range(1, len(ids) // 2 + 1):
        in_a_row = 0
        for token, before in zip(ids[period:], ids, strict=False):
            in_a_row = in_a_row + 1 if token == before else 0
            if in_a_row >= period:
                longest = max(longest, in_a_row)
    return longest


def loops(ids: Sequence[int]) -> bool:
    """Whether a text says the same over and over: half of its sequences of NGRAM tokens came before
    (`repetition`), or a quarter of its tokens, from 4 to 12 by its length, repeat what stands right
    before them (`at_once`). ids: of the tokens of one text, [n]."""
    least = min(max(_LOOPS_SHARE * len(ids), _LOOPS_LEAST), _LOOPS_ENOUGH)
    return repetition(ids) >= _LOOPS_FROM or at_once(ids) >= least


def usual_norm(model: Model, dictionary: Dictionary, text: str) -> float:
    """The norm of a usual activation: the median over the training tokens, or, where the dictionary
    doesn't know it, over the tokens of `text` but the first."""
    if dictionary.median_norm:
        return float(dictionary.median_norm)
    model, layer = model.at(dictionary.hook_point.site), dictionary.hook_point.layer
    tokens = model.tokenize([text])
    x = last_value(model.capture_each([tokens], [layer]))[layer]
    return float(x.norm(dim=1).median()) if len(x) else 1.0


def why_not_written_on(model: Model) -> str:
    """A sentence on why a model can't be steered, empty where it can."""
    if model.is_swept:
        return (
            f"{model.name} does not fit into memory, so it is read from the disk block by block: "
            "each token that it writes would read all of it again. Steer a smaller model, or "
            "allow this one more memory (ITDA_MEMORY)."
        )
    return model.why_not("splicing")


def write_on(
    model: Model,
    text: str,
    writing: Writing,
    added: tuple[int, torch.Tensor] | None = None,
) -> Iterator[WrittenToken]:
    """Let the model go on with `text`, token by token, until it ends or has written enough.

    added: a layer and what is added to its activations, [d_model]: those of the text and of what is
    written, all but the first. The text is cut on its left where the model's context has no room.
    Raises InputError for a text without a token, ModelError where the model predicts no next tokens
    or takes nothing added, or is read block by block.
    """
    if model.is_swept:
        raise ModelError(why_not_written_on(model))
    ids = _read_ids(model, text, writing)
    if added:
        added = (added[0], added[1].to(model.device))
    generator = torch.Generator().manual_seed(writing.seed)
    ends, written, steps = _ends(model), [], Steps(model, added)
    for _ in range(writing.max_tokens):
        logits = steps.next_logits(ids)
        token = _draw(logits, writing.temperature, generator)
        if token in ends:
            return
        before = model.tokenizer.decode(written)
        written.append(token)
        yield WrittenToken(
            token,
            _whole(model.tokenizer.decode(written))[len(_whole(before)) :],
            float(logits.log_softmax(0)[token]),
        )
        ids = torch.tensor([[token]], dtype=torch.int64)


def _read_ids(model: Model, text: str, writing: Writing) -> torch.Tensor:
    """What is read of a text, [1, n] int64, cut on its left where the context has no room."""
    room = max(1, model.context_length - writing.max_tokens)
    ids = model.tokenize([text], model.context_length).ids[:, -room:]
    if not ids.numel():
        raise InputError("The text has no token. Type a few words.")
    return ids


def _draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    chances = (logits.double() / temperature).softmax(0)
    return int(torch.multinomial(chances, 1, generator=generator))


def _ends(model: Model) -> set[int]:
    """The tokens with which the model ends a text."""
    settings = getattr(model.module, "generation_config", None)
    end_ids = getattr(settings, "eos_token_id", None)
    return {end_ids} if isinstance(end_ids, int) else set(end_ids or [])


def _whole(text: str) -> str:
    """Without the sign for a character of which only a part is there."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")
