"""A model's blocks: found among its modules, recorded and left out while it runs."""

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import nn

from itda_core.model.sites import Place, heard

OTHER_SENSES = re.compile(r"\bvision|\bvisual|\baudio|\bimage")
"""In the path of a module that reads no text"""


class _LastLayerReached(Exception):
    """Stops a forward pass once everything asked for has been recorded."""


def block_lists(module: nn.Module) -> list[str]:
    """Paths of the lists that may be a model's blocks, the likeliest first: those with one entry
    for each hidden layer of the configuration, then those with most weights. Which one it is, the
    proof finds out (see proof.py).
    """
    n_layers = getattr(module.config.get_text_config(), "num_hidden_layers", None)
    lists = {
        path: (len(child) == n_layers, sum(weight.numel() for weight in child.parameters()))
        for path, child in module.named_modules()
        if isinstance(child, nn.ModuleList)
        and len(child)
        and not OTHER_SENSES.search(path)
        and not re.search(r"\.\d+\.", f".{path}")  # inside a block
    }
    return sorted(lists, key=lists.get, reverse=True)


@contextmanager
def recorded(
    blocks: Sequence[nn.Module],
    layers: Sequence[int],
    stop: bool = True,
    places: Sequence[Place] | None = None,
) -> Iterator[dict[int, list[torch.Tensor]]]:
    """Within this context what stands at a place of the blocks in `layers` is kept: {layer: one
    tensor each time that it runs}. places: one for each of `layers`, by default their outputs;
    stop: the forward pass, and with it the context, ends after the last one."""
    outputs: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int, hidden: torch.Tensor) -> None:
        outputs[layer].append(hidden)
        if stop and layer == max(outputs):
            raise _LastLayerReached

    with ExitStack() as all_layers:
        of_layers = dict(zip(layers, places or [Place()] * len(layers), strict=True))
        for layer, place in of_layers.items():
            hear = functools.partial(keep, layer)
            all_layers.enter_context(heard(blocks[layer], place, hear))
        with suppress(_LastLayerReached):
            yield outputs


@contextmanager
def left_out(
    blocks: Sequence[nn.Module], hidden: torch.Tensor, n_values: int | None = None
) -> Iterator[None]:
    """Within this context the blocks compute nothing and give `hidden`. n_values: of what a block
    gives where that is a tuple; those after the first are None then."""
    given = hidden if n_values is None else (hidden, *[None] * (n_values - 1))
    forwards = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = lambda *_inputs, **_options: given
        yield
    finally:
        for block, forward in zip(blocks, forwards, strict=True):
            del block.forward  # the class's own again
            if forward is not None:
                block.forward = forward
