"""The weights of a model that stands in memory without them: put in part by part, and taken out.

Names on disk are not always those of the module: families rename, fuse and split tensors while they
load. transformers' own conversion does that here too, for the tensors of one part at a time.
"""

import threading
from collections.abc import Iterable

import torch
from torch import nn

from itda_core.errors import ModelError
from itda_core.model.process_lock import alone
from itda_core.model.rooms import Rooms
from itda_core.model.weight_files import StoredTensor


class Weights:
    """Which tensors on disk belong to which part of a module, and putting them in.

    A part is named by its path in the module, such as "model.layers.3" or "lm_head".
    """

    def __init__(self, module: nn.Module, stored: dict[str, StoredTensor], dtype: torch.dtype):
        """module: transformers' own, its parameters without memory. dtype: that of its weights.
        Raises ModelError where what is on disk does not fit into it."""
        from transformers.conversion_mapping import get_model_conversion_mapping

        self.module, self.device = module, torch.device("cpu")
        self._stored, self._dtype = stored, dtype
        self._conversions = get_model_conversion_mapping(module)
        self._initial = _persistent(module)
        self._targets = self._find_targets()
        self.report = self._tried()
        """What transformers says of loading all of it: missing_keys, unexpected_keys"""

    def stored_names(self, part: str) -> list[str]:
        """Names on disk of all that a part needs, with what it shares with another part."""
        own = [name for name, target in self._targets.items() if _is_in(target, part)]
        shared = self._shared(part)
        return own + [name for name, target in self._targets.items() if target in shared]

    def outside(self, part: str, others: Iterable[str]) -> list[str]:
        """The same of what lies in a part, and is needed by none of the others."""
        needed = {name for other in others for name in self.stored_names(other)}
        return [name for name in self.stored_names(part) if name not in needed]

    def stored_bytes(self, names: Iterable[str]) -> int:
        """Bytes on disk."""
        return sum(self.stored_sizes(names))

    def stored_sizes(self, names: Iterable[str]) -> list[int]:
        """The same of each tensor."""
        return [self._stored[name].n_bytes for name in names]

    def bytes_of(self, names: Iterable[str]) -> int:
        """The same in memory, in the data type of the model; what becomes one tensor there counts
        once."""
        return sum(self._sizes.get(target, 0) for target in {self._targets[name] for name in names})

    def read(
        self,
        names: Iterable[str],
        stop: threading.Event | None = None,
        rooms: Rooms | None = None,
    ) -> dict[str, torch.Tensor]:
        """Tensors from disk, in main memory and as they are there; those until `stop` is set.
        rooms: whose memory they take, by default their own."""
        found = {}
        for name in names:
            if stop is not None and stop.is_set():
                break
            found[name] = self._stored[name].read(rooms)
        return found

    @alone
    def put_in(self, tensors: dict[str, torch.Tensor]) -> set[str]:
        """Give the module what was read; `tensors` is emptied on the way, so that memory holds
        little twice. The names in the module of what it has now, for `take_out`. Raises ModelError
        where some of it did not get there, and then leaves nothing.

        It holds the lock: whoever loads a model meanwhile changes how modules of the whole process
        take their weights.
        """
        targets = {self._targets[name] for name in tensors} & self._initial.keys()
        try:
            return self._put_in(tensors)
        except BaseException:
            self.take_out(targets | self._same(targets).keys())
            raise

    def _put_in(self, tensors: dict[str, torch.Tensor]) -> set[str]:
        report = self._convert({name: _Once(tensors.pop(name)) for name in [*tensors]}, self.device)
        filled = set(self._initial) - report.missing_keys
        filled |= self._share(filled)
        lacking = sorted(name for name in filled if _get(self.module, name).is_meta)
        if wrong := [*lacking, *report.conversion_errors]:
            raise ModelError(f"The weights {wrong[0]} of the model could not be put in place.")
        return filled

    def take_out(self, filled: set[str]) -> None:
        """Let go of what was put in."""
        for name in filled:
            _set(self.module, name, self._initial[name])

    def _find_targets(self) -> dict[str, str]:
        """The name in the module of what each tensor on disk becomes, or becomes a part of."""
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            rename_source_key,
        )

        renamings = [one for one in self._conversions if isinstance(one, WeightRenaming)]
        converters = [one for one in self._conversions if isinstance(one, WeightConverter)]
        place = (self.module.base_model_prefix, self.module.state_dict())
        found = {}
        for name in self._stored:
            target, _ = rename_source_key(name, renamings, converters, *place)
            if target not in self._initial and name in self._initial:
                target, _ = rename_source_key(name, [], [], *place)
            found[name] = target
        return found

    def _tried(self):
        """Load everything without memory, and so find out what fits."""
        nothing = {name: tensor.empty() for name, tensor in self._stored.items()}
        report = self._convert(nothing, torch.device("meta"))
        self._sizes = {
            name: tensor.numel() * tensor.itemsize
            for name, tensor in _persistent(self.module).items()
        }
        for name, initial in self._initial.items():
            _set(self.module, name, initial)
        if wrong := [*report.conversion_errors, *(one for one, *_ in report.mismatched_keys)]:
            raise ModelError(
                f"The tensor {wrong[0]} has no place in a {type(self.module).__name__} of this "
                "config.json. Get the model again."
            )
        for one, other in self._pairs():
            if one not in report.missing_keys:
                report.missing_keys.discard(other)
        self.module._adjust_missing_and_unexpected_keys(report)
        return report

    def _convert(self, tensors: dict, device: torch.device):
        """transformers' own loading of some tensors; its report."""
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        config = LoadStateDictConfig(
            device_map={"": device},
            dtype=self._dtype,
            dtype_plan=self.module._get_dtype_plan(self._dtype),
            weight_mapping=self._conversions,
        )
        report, _ = convert_and_load_state_dict_in_model(self.module, tensors, config)
        return report

    def _pairs(self) -> list[tuple[str, str]]:
        """Weights that are one and the same, by two names in the module each, both ways round."""
        tied = getattr(self.module, "all_tied_weights_keys", None) or {}
        both = [*tied.items(), *((source, target) for target, source in tied.items())]
        siblings = [
            (one, other)
            for one, source in tied.items()
            for other, same in tied.items()
            if one != other and source == same
        ]
        return both + siblings

    def _shared(self, part: str) -> set[str]:
        """Names in the module, outside a part, of weights that it shares and has no own copy of on
        disk."""
        stored = set(self._targets.values())
        return {
            one
            for one, other in self._pairs()
            if _is_in(other, part) and other not in stored and one in stored
        }

    def _share(self, filled: set[str]) -> set[str]:
        """Give weights that were put in to those that are the same; the names of these."""
        given = self._same(filled)
        for other, one in given.items():
            _set(self.module, other, _get(self.module, one))
        return set(given)

    def _same(self, filled: set[str]) -> dict[str, str]:
        """Names of weights without an own copy on disk that are one of `filled`, and which."""
        stored = set(self._targets.values())
        given = {other: one for one, other in self._pairs() if one in filled}
        return {other: one for other, one in given.items() if other not in stored}

    def share_blocks(self, parts: list[str]) -> bool:
        """Whether one of several parts has weights that are those of something else, too."""
        return any(_is_in(one, part) for one, _ in self._pairs() for part in parts)


class _Once:
    """A tensor that is handed over once, and then no longer held."""

    def __init__(self, tensor: torch.Tensor):
        self._tensor = [tensor]

    def __getitem__(self, _everything) -> torch.Tensor:
        return self._tensor.pop()


def _persistent(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that belong into a file, as they are held, by name."""
    return {name: _get(module, name) for name in module.state_dict()}


def _get(module: nn.Module, name: str) -> torch.Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)


def _set(module: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    kind = owner._parameters if leaf in owner._parameters else owner._buffers
    kind[leaf] = value


def _is_in(name: str, part: str) -> bool:
    return not part or name == part or name.startswith(f"{part}.")
