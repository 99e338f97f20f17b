"""What the explorer says a model can do, held against transformers on other texts than the proof's.

Nothing of the proof is used: another instance of the model, longer texts of random tokens, hooks
written here, and transformers' own `generate`.
"""

from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
import transformers

from itda_core.model.model import Model
from itda_core.model.pretrained import ENCODER
from itda_core.model.steps import Steps
from itda_core.model.tokens import TokenizedText, Tokens, padded
from tools.model_types.listing import ModelType

_LENGTHS = (37, 5, 21, 12)
_TOLERANCE = 2e-3
"""Of the largest relative difference of a row"""
_STEPS = 5
_MOST = 0.5
"""The share of rows that must be the same where texts of different lengths are compared: where keys
or experts are chosen by scores that are nearly equal, a row may go another way"""
_PARAGRAPH = (
    "The harbour lay quiet when the ships came in from the north, forty of them, with salt and "
    "wool for the market. Nobody had seen so many since the war; children ran along the quay, and "
    "17 men wrote down names, prices and weights until it was dark."
)


class WrongNumbers(Exception):
    """An ability that was said to be there gives something else than transformers."""


def check(model: Model, one: ModelType, folder: Path) -> None:
    """Raises WrongNumbers for the first ability that the model has and that is wrong."""
    kind = getattr(transformers, one.class_name)
    other = kind.from_pretrained(folder, dtype=torch.float32).eval()
    if model.name.endswith(ENCODER):
        other = other.get_encoder()
    else:  # the whole, or its language model
        other = next(part for part in other.modules() if type(part) is type(model.module))
    tokens = _texts(model)
    mask = tokens.mask
    base = model.module.base_model
    path = next(path for path, child in base.named_modules() if child is model.blocks)
    with torch.no_grad():
        reads = other if model.is_causal else other.base_model
        output, last = _pass_with_last(reads, other.base_model.get_submodule(path)[-1], tokens)
    captured = model.capture(tokens, range(model.n_layers), skip_first=False)
    states = output.hidden_states
    first = 0 if torch.equal(states[0][mask], captured[0]) else 1  # Mamba's kin count no embeddings
    for layer, state in enumerate(states[first : model.n_layers - 1 + first]):
        _same(captured[layer], state[mask], f"block {layer}")
    _same(captured[model.n_layers - 1], last[mask], "the last block")
    _check_sites(model, other, path, tokens, captured)
    if model.is_causal:
        _check_predictions(model, other, path, tokens, output.logits)


def _texts(model: Model) -> Tokens:
    """Random orders of the tokens of a paragraph."""
    draw = np.random.default_rng(7)
    known = np.unique(model.tokenize([_PARAGRAPH]).ids.numpy())
    texts = []
    for length in (min(length, model.context_length - 4) for length in _LENGTHS):
        # No token twice: where keys are chosen by scores without positions, two of a kind tie.
        ids = draw.permutation(known)[:length].astype(np.int32)
        blank = np.zeros((len(ids), 2), np.int32)
        texts.append(TokenizedText("", ids, blank, blank[:, 0] > 0))
    return padded(model.tokenizer, texts)


def _pass_with_last(other, block, tokens):
    """transformers' output with all hidden states, and the last block's by a hook of our own."""
    kept = []
    handle = block.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        options = {"output_hidden_states": True, "return_dict": True}
        output = other(input_ids=tokens.ids, attention_mask=tokens.mask.long(), **options)
    finally:
        handle.remove()
    return output, kept[0] if torch.is_tensor(kept[0]) else kept[0][0]


def _check_predictions(model: Model, other, path: str, tokens: Tokens, logits) -> None:
    mask = tokens.mask
    _same(model.logits(tokens)[mask], logits[mask], "logits")
    _check_causal(model, tokens)
    if not model.abilities.splicing:
        _check_splicing(model, other, path, tokens)
    if not model.abilities.unembedding:
        last = model.hidden(tokens, model.n_layers - 1)[mask]
        _same(model.unembed(last), logits[mask], "unembedding", centered=True)
    _check_writing(model, other, path, tokens)


def _check_sites(model: Model, other, path: str, tokens: Tokens, outputs) -> None:
    """What is read within the blocks adds up to what comes out of them, and random vectors put in
    do what they do by a hook on the other instance's module."""
    layers, found = range(model.n_layers), {}
    for site in model.sites.places:
        found[site] = model.capture(tokens, layers, skip_first=False, site=site)
    for layer in layers:
        before = found["resid_pre"][layer] if "resid_pre" in found else None
        if before is not None and layer:
            _same(before, outputs[layer - 1], f"what goes into block {layer}")
        if "attn_out" in found and before is not None:
            middle = before + found["attn_out"][layer]
            if "resid_mid" in found:
                _same(middle, found["resid_mid"][layer], f"the stream within block {layer}")
            _same(middle + found["mlp_out"][layer], outputs[layer], f"the sum of block {layer}")
    if model.is_causal and not model.abilities.splicing:
        for site in {"attn_out", "mlp_out"} & found.keys():
            _check_added(model, other, path, tokens, site)


def _check_added(model: Model, other, path: str, tokens: Tokens, site: str) -> None:
    draw, layer = torch.Generator().manual_seed(4), model.n_layers // 2
    place, hidden = model.sites.place(site, layer), model.hidden(tokens, layer, site)
    hidden = hidden + hidden.std() * torch.randn(hidden.shape, generator=draw)
    inner = f"{path}.{layer}.{place.module}"
    parent, _, last = inner.rpartition(".")
    found = model.logits_after(tokens, layer, hidden, site)[tokens.mask]
    put_in = hidden / place.factor
    with _changed(other, parent, last, lambda was: put_in.reshape(was.shape)):
        expected = _logits(other, tokens.ids, tokens.mask)
    _same(found, expected[tokens.mask], f"logits with another {site}", centered=True)


def _check_causal(model: Model, tokens: Tokens) -> None:
    """The first tokens alone give what they give in the text."""
    half = int(tokens.lengths[0]) // 2
    blank = np.zeros((half, 2), np.int32)
    text = TokenizedText("", tokens.ids[0, :half].int().numpy(), blank, blank[:, 0] > 0)
    alone = model.logits(padded(model.tokenizer, [text]))[0]
    whole = model.logits(tokens.select([0]))[0, :half]
    _same(alone, whole, "the first half of a text alone", centered=True, rows=_MOST)


def _check_splicing(model: Model, other, path: str, tokens: Tokens) -> None:
    """Random activations after each block, against a hook on the other instance."""
    draw = torch.Generator().manual_seed(3)
    for layer in range(model.n_layers):
        hidden = model.hidden(tokens, layer)
        hidden = hidden + hidden.std() * torch.randn(hidden.shape, generator=draw)
        found = model.logits_after(tokens, layer, hidden)[tokens.mask]
        with _changed(other, path, layer, lambda _was, hidden=hidden: hidden):
            expected = _logits(other, tokens.ids, tokens.mask)
        _same(found, expected[tokens.mask], f"logits after block {layer}", centered=True)


def _check_writing(model: Model, other, path: str, tokens: Tokens) -> None:
    """Step by step, plain and with a vector added, against whole passes of the other instance."""
    ids = tokens.ids[1:2, : int(tokens.lengths[1])]
    layer = model.n_layers // 2
    vector = model.capture(tokens, [layer])[layer][3]

    def shifted(was):
        return torch.cat([was[:, :1], was[:, 1:] + vector], 1)

    for added in (None, (layer, vector)):
        if added and model.abilities.splicing:
            continue
        steps, new, grown = Steps(model, added), ids, torch.zeros((1, 0), dtype=torch.int64)
        found, expected = [], []
        for _ in range(_STEPS):
            grown = torch.cat([grown, new], 1)
            found.append(steps.next_logits(new))
            with _changed(other, path, layer, shifted) if added else nullcontext():
                expected.append(_logits(other, grown, torch.ones_like(grown))[0, -1])
            new = found[-1].argmax()[None, None]
        _same(torch.stack(found), torch.stack(expected), "writing on", centered=True, rows=_MOST)


def _logits(other, ids, mask) -> torch.Tensor:
    with torch.no_grad():
        return other(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits


@contextmanager
def _changed(other, path: str, layer: int | str, change):
    def hook(_module, _inputs, output):
        if torch.is_tensor(output):
            return change(output)
        return (change(output[0]), *output[1:])

    module = other.base_model.get_submodule(f"{path}.{layer}")
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _same(found, expected, what: str, centered: bool = False, rows: float = 1.0) -> None:
    """rows: the share of them that must be the same."""
    found, expected = found.double(), expected.double()
    if centered:
        found, expected = (x.log_softmax(-1).clamp(min=-50) for x in (found, expected))
        found, expected = (x - x.mean(-1, keepdim=True) for x in (found, expected))
    differences = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    difference = differences.flatten().quantile(rows)
    if not difference < _TOLERANCE:
        raise WrongNumbers(f"{what} differs by {difference:.1%}")
