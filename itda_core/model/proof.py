"""A model proves itself before it is used: each ability is compared with transformers' own output.

Two short texts of different lengths go through it, together (padded) and alone. Each ability that
holds for them is taken to hold; one that does not is named with what differed. No rule by family
is needed, and none can be forgotten.
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import ExitStack

import torch

from itda_core.errors import InputError, ItdaError, ModelError, WeightsGone
from itda_core.model.abilities import Abilities
from itda_core.model.blocks import left_out, recorded
from itda_core.model.context import embedding_rows
from itda_core.model.model import Model
from itda_core.model.pretrained import is_of_the_machine
from itda_core.model.steps import Steps
from itda_core.model.tokens import Tokens, padded

TEXTS = (
    "The Senate met on Monday to ratify the treaty with Spain, and the House agreed to it.",
    "Peace at last, they said.",
)
_LENGTHS = (16, 6)
"""The most tokens of each"""
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""The largest ‖found − expected‖ / ‖expected‖ of a row that rounding explains, by data type"""
_ROUNDING = 1e-5
"""The same for passes of one shape, which round alike"""
_ROUNDING_OF_EXPERTS = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
"""The same where each expert's tokens are rounded together, by data type"""
_IMPOSSIBLE = -40.0
"""A log-probability in nats: what families mask out is set to the lowest number that there is"""
_TOGETHER = 8
"""Layers that are tried in one pass"""
_STEP_INPUTS = (("attention_mask", "position_ids"), ("attention_mask",), ())
"""What families want beside the new tokens: some count positions by themselves, and a few break
where a mask covers more than those"""
_STEPS = 3
"""Tokens that are written on one by one"""


class Differs(Exception):
    """What was found not to hold, as the reason that goes with the ability."""


def prove(model: Model) -> Abilities:
    """What the model does right. Its `abilities` are left as they were; `d_model` becomes the
    width that its blocks give."""
    before = model.abilities
    try:
        model.abilities = Abilities()  # nothing is held back while it is tried
        return _Proof(model).abilities()
    finally:
        model.abilities = before


class _Proof:
    """The two texts, and what transformers gives for them."""

    def __init__(self, model: Model):
        self.model = model
        self.both = proof_tokens(model)
        self.long, self.short = self.both.select([0]), self.both.select([1])
        self.tolerance = TOLERANCE.get(model.dtype, TOLERANCE["bfloat16"])
        # In half precision rounding may send a token to another expert: then some rows differ.
        self.has_experts = has_experts(model)
        self.rows = 0.75 if self.has_experts and model.dtype != "float32" else 1.0

    def abilities(self) -> Abilities:
        """Each ability in its turn; those after the first two need what came before."""
        if reason := reason_of(self.check_capture):
            return Abilities.none("capture", reason)
        if reason := reason_of(self.check_next_tokens):
            return Abilities.none("next_tokens", reason)
        if reason := reason_of(self.check_splicing):
            return Abilities.none("splicing", reason)
        begins_after = self.begins_after()
        self.model.abilities = Abilities(begins_after=begins_after)
        unembedding = reason_of(self.check_unembedding)
        reason, inputs = self.find_step_inputs()
        return Abilities(
            unembedding=unembedding,
            cached_steps=reason,
            step_inputs=inputs,
            begins_after=begins_after,
        )

    def check_capture(self) -> None:
        """Every block runs once in a pass, and what is captured of it is what transformers gives as
        its hidden states, in the batch as alone."""
        if not min(self.both.lengths) > 1:
            raise Differs("its tokenizer makes no tokens of a sentence: are its files there?")
        model, layers = self.model, range(self.model.n_layers)
        options = {"output_hidden_states": True, "use_cache": False}
        with recorded(model.blocks, layers, stop=False) as outputs:
            output = model.run_base(self.both, **options)
        states = getattr(output, "hidden_states", None)
        for layer, found in outputs.items():
            if len(found) != 1:
                raise Differs(f"block {layer} runs {len(found)} times in a pass, not once")
            shape = tuple(found[0].shape)
            if layer == 0:
                model.d_model = shape[-1]
            expected = (*self.both.ids.shape, model.d_model)
            if shape != expected:
                names = "[texts, tokens, d_model]"
                raise Differs(f"block {layer} gives {shape} where {expected} is due, {names}")
        captured = model.capture(self.both, layers, skip_first=False, to="cpu")
        mask = self.both.mask
        for layer, rows in captured.items():
            if not torch.isfinite(rows).all():
                raise Differs(f"the activations of block {layer} are not finite")
            self._compare(rows, outputs[layer][0][mask], f"block {layer} when captured")
        if states is not None:
            self._compare_states(captured, states)
        elif len(model.blocks) != getattr(model.text_config, "num_hidden_layers", None):
            raise Differs("no list of blocks was found that is known to be the right one")
        for number, alone in enumerate((self.long, self.short)):
            found = model.capture(alone, layers, skip_first=False, to="cpu")
            for layer, rows in found.items():
                together = captured[layer][captured.prompts == number]
                self._compare(together, rows, f"block {layer} of a text in a batch and alone")

    def _compare_states(self, captured, states) -> None:
        n_layers, mask = self.model.n_layers, self.both.mask
        if len(states) != n_layers + 1:
            raise Differs(f"transformers gives {len(states)} hidden states of {n_layers} blocks")
        # Most families count the embeddings as the first state, and the last state has gone through
        # a norm. Mamba's kin count the blocks' outputs, and after them what the norm makes of it.
        first = 0 if self._difference(captured[0], states[0][mask]) <= self.tolerance else 1
        for layer in range(n_layers - 1):
            self._compare(captured[layer], states[layer + first][mask], f"block {layer}")

    def check_next_tokens(self) -> None:
        """Changing a later token changes no earlier row, and there are logits."""
        model, layers = self.model, range(self.model.n_layers)
        length = int(self.long.lengths[0])
        middle = length // 2
        ids = self.long.ids.clone()
        ids[0, middle:] = ids[0, : length - middle].flip(0)
        changed = _with_ids(self.long, ids)
        plain = model.capture(self.long, layers, skip_first=False, to="cpu")
        other = model.capture(changed, layers, skip_first=False, to="cpu")
        for layer in layers:
            self._check_unmoved(other[layer][:middle], plain[layer][:middle], "activations")
        with recorded(model.blocks, layers, stop=False) as outputs:
            output = model.run(self.long.ids, self.long.mask, use_cache=False)
        for layer in layers:  # some heads run their blocks in another way
            self._compare(outputs[layer][0][0], plain[layer], f"block {layer} below the head")
        logits = getattr(output, "logits", None)
        if logits is None:
            raise Differs("it was saved without the head that predicts them")
        if logits.shape[:2] != self.long.ids.shape or not torch.isfinite(logits).all():
            raise Differs("its logits are not one finite row for each token")
        rows = embedding_rows(model.module)
        if rows is not None and logits.shape[-1] > rows:
            raise Differs(f"it tells {logits.shape[-1]:,} things apart, but reads {rows:,} tokens")
        moved = model.logits(changed)[0, :middle]
        self._check_unmoved(centered(moved), centered(logits[0, :middle]), "next tokens")

    def _check_unmoved(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        """Passes of one shape round alike: what later tokens move is more than that."""
        rounding = _ROUNDING_OF_EXPERTS[self.model.dtype] if self.has_experts else _ROUNDING
        if self._difference(found, expected, rows=1.0) > rounding:
            raise Differs(f"a token's {what} depend on the tokens after it")

    def check_splicing(self) -> None:
        """Own activations put back in all layers give the same logits; others change them."""
        model, tokens, plain = self.model, self.long, self._plain
        together = model.logits(self.both)
        for number, alone in enumerate((plain, model.logits(self.short))):
            length = alone.shape[1]
            self._compare_logits(together[number, :length], alone[0], "logits in a batch")
        with ExitStack() as all_layers:
            for layer, own in self._hidden.items():
                all_layers.enter_context(model.splice(layer, own, tokens.mask))
            self._compare_logits(model.logits(tokens), plain, "logits with its own activations")
        for layer, found in self._spliced.items():
            if self._difference(centered(found), centered(_end(plain))) <= self.tolerance:
                raise Differs(f"what is put in place of block {layer}'s output changes nothing")

    @functools.cached_property
    def _spliced(self) -> dict[int, torch.Tensor]:
        """The last logits with other activations in place of each layer's. One pass has a copy of
        the text for each of several layers."""
        found, layers = {}, [*self._hidden]
        for first in range(0, len(layers), _TOGETHER):
            chosen = layers[first : first + _TOGETHER]
            copies = self.long.select([0] * len(chosen))
            with ExitStack() as all_layers:
                for row, layer in enumerate(chosen):
                    where = copies.mask.clone()
                    where[:row], where[row + 1 :] = False, False
                    hidden = _other(self._hidden[layer]).expand(len(chosen), -1, -1)
                    all_layers.enter_context(self.model.splice(layer, hidden, where))
                logits = self.model.logits(copies)
            found |= {layer: _end(logits[row:]) for row, layer in enumerate(chosen)}
        return found

    def begins_after(self) -> tuple[int, ...]:
        """The layers after which a pass may begin: it gives what the whole pass gives."""
        hidden, short = self._short_and_long(), self.model.logits(self.short)[0]
        # Nothing that a block may have kept of these texts must help: another order of the tokens
        # has run since, and from the last layer down no block runs before it is to be left out.
        self.model.logits(_with_ids(self.short, self.short.ids.flip(1)))
        lacking = {
            layer: reason_of(functools.partial(self._check_beginning, layer, hidden[layer], short))
            for layer in reversed(self._hidden)
        }
        return tuple(layer for layer in self._hidden if not lacking[layer])

    def _check_beginning(self, layer: int, hidden: torch.Tensor, short: torch.Tensor) -> None:
        """Two texts, padded: some families would take the first alone of what is given."""
        model, what = self.model, f"logits after block {layer}"
        hidden[1] = _other(self._hidden[layer])[0]
        with left_out(model.blocks[: layer + 1], hidden):
            found = model.logits(self.both.select([1, 0]))
        self._compare_logits(_end(found[1:]), self._spliced[layer], what)
        self._compare_logits(found[0, : len(short)], short, what)

    def _short_and_long(self) -> dict[int, torch.Tensor]:
        """Every block's output for the short text and the long one, [2, n_tokens, d_model]."""
        tokens = self.both.select([1, 0])
        rows = self.model.capture(tokens, range(self.model.n_layers), skip_first=False, to="cpu")
        dtype, device = next(self.model.module.parameters()).dtype, self.model.device
        padded_rows = {}
        for layer, x in rows.items():
            hidden = torch.zeros((*tokens.ids.shape, x.shape[1]), dtype=dtype)
            hidden[tokens.mask] = x.to(dtype)
            padded_rows[layer] = hidden.to(device)
        return padded_rows

    def check_unembedding(self) -> None:
        """The last block's output through whatever follows gives the model's logits."""
        model = self.model
        last = self._hidden[model.n_layers - 1][0]
        self._compare_logits(
            model.unembed(last), self._plain[0].cpu(), "logits of the last block's output"
        )

    def find_step_inputs(self) -> tuple[str, tuple[str, ...]]:
        """Why steps give something else, empty where they don't, and what each has to be told."""
        reasons = []
        for inputs in _STEP_INPUTS:
            self.model.abilities = dataclasses.replace(self.model.abilities, step_inputs=inputs)
            reasons.append(reason_of(self.check_steps))
            if not reasons[-1]:
                return "", inputs
        return reasons[0], ()

    def check_steps(self) -> None:
        """Token by token, with and without an added vector, gives what the whole text gives."""
        layer = self.model.n_layers // 2
        vector = self._hidden[layer][0, 1].float()
        for added in (None, (layer, vector)):
            steps, length = Steps(self.model, added), int(self.long.lengths[0])
            found = [steps.next_logits(self.long.ids[:, : length - _STEPS])]
            found += [
                steps.next_logits(self.long.ids[:, place : place + 1])
                for place in range(length - _STEPS, length)
            ]
            self._compare_logits(torch.stack(found), self._whole(added)[-_STEPS - 1 :], "steps")

    def _whole(self, added) -> torch.Tensor:
        """Logits of the whole text, [n_tokens, n_vocabulary]."""
        model = self.model
        if not added:
            return self._plain[0].cpu()
        layer, vector = added
        hidden = model.hidden(self.long, layer).clone()
        hidden[:, 1:] += vector.to(hidden)
        with model.splice(layer, hidden, self.long.mask):
            return model.logits(self.long)[0].cpu()

    @functools.cached_property
    def _plain(self) -> torch.Tensor:
        """Logits of the longer text, [1, n_tokens, n_vocabulary]."""
        return self.model.logits(self.long)

    @functools.cached_property
    def _hidden(self) -> dict[int, torch.Tensor]:
        """Every block's output for the longer text, [1, n_tokens, d_model]."""
        rows = self.model.capture(self.long, range(self.model.n_layers), skip_first=False, to="cpu")
        dtype = next(self.model.module.parameters()).dtype
        return {layer: x[None].to(self.model.device, dtype) for layer, x in rows.items()}

    def _compare(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        difference = self._difference(found, expected)
        if not difference <= self.tolerance:
            raise Differs(f"{what} differs by {difference:.0%} from transformers' own")

    def _compare_logits(self, found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        self._compare(centered(found), centered(expected), what)

    def _difference(
        self, found: torch.Tensor, expected: torch.Tensor, rows: float | None = None
    ) -> float:
        """The largest ‖found − expected‖ / ‖expected‖ of a row; `rows`: of this share of them."""
        found, expected = found.float().cpu(), expected.float().cpu()
        if found.shape != expected.shape:
            return float("inf")
        norms = expected.norm(dim=-1).clamp(min=1e-6)
        differences = ((found - expected).norm(dim=-1) / norms).flatten()
        return float(differences.quantile(self.rows if rows is None else rows))


def proof_tokens(model: Model) -> Tokens:
    """The two texts, or as many tokens of any kind where the tokenizer hardly tells words apart."""
    found = model.tokenized(TEXTS, min(_LENGTHS[0], model.context_length))
    texts = [text.first(length) for text, length in zip(found, _LENGTHS, strict=True)]
    tokens = padded(model.tokenizer, texts)
    if len(tokens.ids[0].unique()) > tokens.ids.shape[1] // 2:
        return tokens
    rows = embedding_rows(model.module) or len(model.tokenizer)
    draw = torch.Generator().manual_seed(0)
    return _with_ids(tokens, torch.randint(rows // 2, rows, tokens.ids.shape, generator=draw))


def _with_ids(tokens: Tokens, ids: torch.Tensor) -> Tokens:
    return dataclasses.replace(tokens, ids=ids)


def _other(hidden: torch.Tensor) -> torch.Tensor:
    """Activations that are not the text's own, [1, n_tokens, d_model]."""
    return 1.5 * hidden.roll(1, dims=1)


def _end(logits: torch.Tensor) -> torch.Tensor:
    """Those of the last tokens, [_STEPS, n_vocabulary]: they depend on all others."""
    return logits[0, -_STEPS:].clone()


def centered(logits: torch.Tensor) -> torch.Tensor:
    """Without what no probability shows: what is the same for all tokens of the vocabulary, and how
    impossible the impossible ones are."""
    likely = logits.float().log_softmax(-1).clamp(min=_IMPOSSIBLE)
    return likely - likely.mean(-1, keepdim=True)


def has_experts(model: Model) -> bool:
    """Whether tokens are sent to some of several experts."""
    settings = model.text_config.to_dict()
    return any("expert" in name and isinstance(settings[name], int) for name in settings)


def reason_of(check: Callable[[], None]) -> str:
    """Why a check does not hold; empty where it does. What is the machine's fault and not the
    model's is raised on."""
    try:
        check()
    except Differs as differs:
        return str(differs)
    except WeightsGone:
        raise
    except ModelError as error:
        return str(error).rstrip(".")
    except Exception as error:  # whatever a family's own code raises
        is_of_the_disk = isinstance(error, ItdaError) and not isinstance(error, InputError)
        if is_of_the_disk or is_of_the_machine(error):
            raise
        first_line = str(error).strip().split("\n")[0][:150]
        return f"it stops with {type(error).__name__}: {first_line}".rstrip(".: ")
    return ""
