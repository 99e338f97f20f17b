"""A model's blocks: found among its modules, recorded, changed and left out while it runs."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


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
        and not re.search(r"\bvision|\bvisual|\baudio", path)
        and not re.search(r"\.\d+\.", f".{path}")  # inside a block
    }
    return sorted(lists, key=lists.get, reverse=True)


def hidden_of(output) -> torch.Tensor:
    """A block's hidden states. Some blocks return a tensor and some a tuple that starts with it;
    `output[0]` of a tensor would silently keep only the first text of the batch."""
    return output if torch.is_tensor(output) else output[0]


@contextmanager
def recorded(
    blocks: Sequence[nn.Module], layers: Sequence[int], stop: bool = True
) -> Iterator[dict[int, list[torch.Tensor]]]:
    """Within this context the outputs of the blocks in `layers` are kept: {layer: one tensor each
    time that it runs}. stop: the forward pass, and with it the context, ends after the last one."""
    outputs: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int):
        def hook(_module, _inputs, output):
            outputs[layer].append(hidden_of(output))
            if stop and layer == max(outputs):
                raise _LastLayerReached

        return hook

    handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in outputs]
    try:
        yield outputs
    except _LastLayerReached:
        pass
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def changed(block: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within this context the block gives what `change` makes of its output."""

    def replace(_module, _inputs, output):
        hidden = change(hidden_of(output))
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    handle = block.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def left_out(blocks: Sequence[nn.Module], hidden: torch.Tensor) -> Iterator[None]:
    """Within this context the blocks compute nothing and give `hidden`."""
    forwards = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = lambda *_inputs, **_options: hidden
        yield
    finally:
        for block, forward in zip(blocks, forwards, strict=True):
            del block.forward  # the class's own again
            if forward is not None:
                block.forward = forward
