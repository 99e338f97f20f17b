"""A part of a plan that is captured becomes files."""

import torch

from itda_core.activations.massive import usable
from itda_core.cluster.messages import Share
from itda_core.devices import to_device, to_host


class PartWriting:
    """A part that is captured, layer by layer or all layers together."""

    def __init__(self, share: Share):
        self.share = share
        self.n_windows = len(share.windows)
        self.written_before = [rows.layer for rows in share.to if rows.path(share.part).exists()]
        self.layers = {
            rows.layer: rows for rows in share.to if rows.layer not in self.written_before
        }
        """Those that are to be written"""
        self._rows: dict[int, list[torch.Tensor]] = {layer: [] for layer in self.layers}
        self._unusable: dict[int, list[int]] = {layer: [] for layer in self.layers}

    def take(self, layer: int, window: int, x: torch.Tensor) -> bool:
        """Take the activations of a layer's next window, [n_rows, d_model]; whether the part is
        written with them."""
        if layer not in self.layers:
            return False
        kept = None if self.share.kept is None else torch.from_numpy(self.share.kept[window])
        rows = x if kept is None else x[to_device(kept, x.device)]
        rows, good = to_host(rows, usable(x))
        # A copy: what is kept of a window must not keep the whole of it.
        self._rows[layer].append(rows.clone())
        self._unusable[layer].append(int((~good).sum()))
        if len(self._rows[layer]) < self.n_windows:
            return False
        whole, unusable = torch.cat(self._rows.pop(layer)), self._unusable.pop(layer)
        self.layers[layer].write(self.share.part, whole, unusable)
        return True
