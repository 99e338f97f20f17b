"""A model proves the sites of its blocks before one is used: found on two short texts, then tried.

What is read at the sites of a block has to add up, in a batch as alone, and what is put in place of
it has to arrive there.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from itda_core.model.blocks import recorded
from itda_core.model.found_places import Seen, found_places, watched
from itda_core.model.model import Model
from itda_core.model.process_lock import alone
from itda_core.model.proof import TOLERANCE, Differs, centered, has_experts, proof_tokens, reason_of
from itda_core.model.sites import INPUT, Place, Sites
from itda_core.model.sums import difference, sums
from itda_core.model.tokens import Tokens
from itda_core.settings import RESID_POST, SITES

_MOVED = 1e-4
"""The least relative change of a row that is no rounding, float32"""

Values = dict[str, list[torch.Tensor]]
"""By site, what stands there in each block, [n_tokens, d_model] float32"""


@alone
def prove_sites(model: Model) -> Sites:
    """Where the sites of the model's blocks are, and why not where it lacks one. The model has
    proved its other abilities; its sites are left as they were.

    The hooks sit on modules that other threads run too, so that all of it holds the lock.
    """
    return SiteProof(model).sites()


class SiteProof:
    """The two texts, and what is known of the sites so far."""

    def __init__(self, model: Model):
        """model: whose other abilities are proved."""
        self.model = copy.copy(model)  # whose guesses no other thread may see
        self.model.sites = Sites()
        self.both = proof_tokens(model)
        self.long = self.both.select([0])
        self.tolerance = TOLERANCE.get(model.dtype, TOLERANCE["bfloat16"])
        self.layers = range(model.n_layers)
        # In half precision rounding may send a token to another expert: then some rows differ.
        self.rows = 0.75 if has_experts(model) and model.dtype != "float32" else 1.0

    def sites(self) -> Sites:
        found: list[Sites] = []
        if reason := reason_of(lambda: found.append(self._found())):
            return Sites(reasons=dict.fromkeys(SITES[:-1], reason))
        [sites] = found
        for site in SITES[:-1]:
            self.model.sites = sites
            check = functools.partial(self._check, site)
            if site in sites.places and (reason := reason_of(check)):
                sites = _without(sites, site, reason)
        return sites

    def _found(self) -> Sites:
        """As one pass shows them: those that every block has."""
        by_layer, reasons = [], {}
        constants = _numbers(self.model)

        def look(seen: Seen) -> None:
            guess = by_layer[-1] if by_layer else None
            places, lacking = found_places(seen, self.model.dtype, constants, guess)
            for site, reason in lacking.items():
                where = f"in block {len(by_layer)} " if by_layer else ""
                reasons.setdefault(site, f"{where}{reason}")
            by_layer.append(places)

        with ExitStack() as blocks:
            for block in self.model.blocks:
                blocks.enter_context(watched(block, look))
            self.model.run_base(self.both, use_cache=False)
        if len(by_layer) != len(self.layers):
            raise Differs(
                f"its {len(self.layers)} blocks ran {len(by_layer)} times in a pass, not once each"
            )
        places = {
            site: tuple(of_block[site] for of_block in by_layer)
            for site in SITES[:-1]
            if site not in reasons
        }
        return self._ordered(Sites(places, reasons))

    def _ordered(self, sites: Sites) -> Sites:
        """Where attention and MLP stand side by side, attention is the one that reads other
        tokens."""
        if "attn_out" not in sites.places or "resid_mid" in sites.places:
            return sites
        self.model.sites = sites
        if self._reads_others("attn_out") or not self._reads_others("mlp_out"):
            return sites
        attention, mlp = sites.places["attn_out"], sites.places["mlp_out"]
        return Sites({**sites.places, "attn_out": mlp, "mlp_out": attention}, sites.reasons)

    def _check(self, site: str) -> None:
        """What is read at a site is there and adds up, and what is put there arrives."""
        self._check_capture(site)
        self._check_sums(self._read(self.both), site)
        self._check_kinds(site)
        if not self.model.abilities.splicing:
            self._check_put_in(site)

    def _check_capture(self, site: str) -> None:
        """What is captured is what stands there, in the batch as alone."""
        together = self.model.capture(self.both, self.layers, skip_first=False, to="cpu", site=site)
        alone = [self._read(self.both.select([number]))[site] for number in range(len(self.both))]
        for layer, rows in together.items():
            if not torch.isfinite(rows).all():
                raise Differs(f"in block {layer} it is not finite")
            expected = torch.cat([of_text[layer] for of_text in alone])
            self._compare(rows, expected, f"in block {layer} it", "in a batch from alone")

    def _check_kinds(self, site: str) -> None:
        """Attention reads other tokens; an MLP beside it does not."""
        if site == "attn_out" and not self._reads_others(site):
            raise Differs("what seems to be its attention reads no other token")
        is_beside = site == "mlp_out" and "resid_mid" not in self.model.sites.places
        if is_beside and self._reads_others(site):
            raise Differs("what seems to be its MLP reads other tokens")

    def _reads_others(self, site: str) -> bool:
        """Whether another first token changes what stands at the site of later ones, in the first
        block, which gets the same of those."""
        ids = self.long.ids.clone()
        ids[:, 0] = ids[:, -1]
        other = dataclasses.replace(self.long, ids=ids)
        one, changed = (self._read(tokens)[site][0][1:] for tokens in (self.long, other))
        return difference(changed, one) > _MOVED

    def _check_sums(self, values: Values, site: str) -> None:
        """resid_pre is what the block before gave, attn_out and mlp_out what is added to it."""
        after = values[RESID_POST]
        for layer in self.layers:
            where = f"in block {layer}"
            stream = values["resid_pre"][layer]
            if site == "resid_pre" and layer:
                what = f"what goes into block {layer}"
                self._compare(stream, after[layer - 1], what, "from what the one before gave")
            if site == "resid_pre" or "attn_out" not in values:
                continue
            for what, found, expected, name in sums({one: of[layer] for one, of in values.items()}):
                self._compare(found, expected, f"{where} {what}", f"from {name}")

    def _check_put_in(self, site: str) -> None:
        """Its own activations put back change no logits; others arrive, and all adds up then."""
        tokens, own = self.long, self._read(self.long)[site]
        with self._spliced(site, own):
            found = self.outcome(tokens)
        what = "the logits with its own activations"
        self._compare(found, self.outcome(tokens), what, "from its own")
        others = [1.5 * rows.roll(1, dims=0) for rows in own]
        with self._spliced(site, others):
            values = self._read(tokens)
        for layer, rows in enumerate(others):
            self._compare(values[site][layer], rows, f"in block {layer} it", "from what was put in")
        if site == "resid_pre":
            self._check_begins(others)
        else:
            self._check_sums(values, site)

    def outcome(self, tokens: Tokens) -> torch.Tensor:
        """What comes of a pass, [n_texts, longest, …]."""
        return centered(self.model.logits(tokens))

    def _check_begins(self, others: list[torch.Tensor]) -> None:
        """What is put before a block is what is put after the one before it."""
        model, tokens = self.model, self.long
        for layer in {1, self.layers[-1]} & {*self.layers[1:]}:
            hidden = others[layer][None]
            with model.splice(layer, hidden, tokens.mask, "resid_pre"):
                found = self.outcome(tokens)
            with model.splice(layer - 1, hidden, tokens.mask, RESID_POST):
                expected = self.outcome(tokens)
            what = f"the logits with others before block {layer}"
            self._compare(found, expected, what, "from the same after the last")

    @contextmanager
    def _spliced(self, site: str, rows: list[torch.Tensor]) -> Iterator[None]:
        """Within this context these stand at the site of the longer text in every block."""
        with ExitStack() as all_layers:
            for layer, hidden in enumerate(rows):
                splice = self.model.splice(layer, hidden[None], self.long.mask, site)
                all_layers.enter_context(splice)
            yield

    def _read(self, tokens: Tokens) -> Values:
        """What stands at all sites that are known, in one pass, without padding."""
        model, found = self.model, {}
        with ExitStack() as all_sites:
            for site in {"resid_pre": 0, **model.sites.places, RESID_POST: 0}:
                places = [self._place(site, layer) for layer in self.layers]
                hearing = recorded(model.blocks, self.layers, stop=False, places=places)
                found[site] = all_sites.enter_context(hearing)
            model.run_base(tokens, use_cache=False)
        return {
            site: [hidden[0][tokens.mask].float().cpu() for hidden in of_layers.values()]
            for site, of_layers in found.items()
        }

    def _place(self, site: str, layer: int) -> Place:
        """What goes into a block is a part of sums also where it is not what the last one gave."""
        return INPUT if site == "resid_pre" else self.model.sites.place(site, layer)

    def _compare(self, found, expected, what: str, from_what: str) -> None:
        far = difference(found, expected, self.rows)
        if not far <= self.tolerance:
            raise Differs(f"{what} differs by {far:.0%} {from_what}")


def _without(sites: Sites, site: str, reason: str) -> Sites:
    """Without a site for which something does not hold; where it is a part of the sums, without
    those that they prove."""
    lacking = {site: reason}
    if site != "resid_pre":
        others = [one for one in ("attn_out", "resid_mid", "mlp_out") if one in sites.places]
        lacking |= {one: f"{site} is not what it seems: {reason}" for one in others if one != site}
    places = {name: place for name, place in sites.places.items() if name not in lacking}
    return Sites(places, {**sites.reasons, **lacking})


def _numbers(model: Model) -> list[float]:
    """The numbers of the model's configuration that an output may be multiplied by."""
    settings = model.text_config.to_dict().values()
    return [one for one in settings if isinstance(one, float)]
