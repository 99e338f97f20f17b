"""A device that is none: tensors live on the CPU but say device "pretend", and mixing fails as it
would on a GPU. For tests of the GPU path on machines without a GPU.

    with PretendDevice() as seen:
        x = torch.randn(10, 4).to("pretend")
        matching_pursuit(x, atoms.to("pretend"), 3)
    seen.calls          how often each operation ran there
    seen.waits          operations that make the host wait for a GPU (.item(), .cpu(), nonzero …)

Tried with torch 2.13: matching, orthogonal and refitted pursuit, capture, logits, unembedding,
generation with a cache, and whole trainings run on it and give the CPU's numbers. What it leans on
(`_setup_privateuseone_for_python_backend`) is experimental in torch.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_WAITS = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"),
    # The size of what these give follows from values.
    *("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount"),
    # These look whether they have succeeded.
    *("aten::_linalg_svd", "aten::_linalg_eigh", "aten::_linalg_check_errors"),
    "aten::linalg_cholesky",
}
_MAY_MIX = {"aten::copy_", "aten::index", "aten::index_put_", "aten::index_put"}
"""A copy crosses devices by nature; CUDA takes indices from the host too (and waits for them)."""

_setup_privateuseone_for_python_backend(NAME)
# It draws nothing, but torch.random.fork_rng asks every device there is.
_backend = getattr(torch, NAME)
_backend.get_rng_state = lambda device: torch.zeros(0, dtype=torch.uint8)
_backend.set_rng_state = lambda state, device: None


class _Tensor(torch.Tensor):
    """A CPU tensor that says it is elsewhere."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=f"{NAME}:0",
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, None)


@dataclass
class Seen:
    calls: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)


class PretendDevice(TorchDispatchMode):
    def __init__(self, has_float64: bool = True):
        """has_float64: MPS has none, and fails where a tensor would be."""
        super().__init__()
        self._has_float64 = has_float64

    def __enter__(self) -> Seen:
        self.seen = Seen()
        super().__enter__()
        return self.seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = _named(func, args, kwargs, "device")
        there = device is not None and torch.device(device).type == NAME
        if there or any(isinstance(one, _Tensor) for one in _tensors((args, kwargs))):
            result = _run(func, args, kwargs, self.seen)
            if not self._has_float64 and any(
                isinstance(one, _Tensor) and one.dtype == torch.float64 for one in _tensors(result)
            ):
                raise TypeError("Cannot convert a tensor to float64: this device has none.")
            return result
        return func(*args, **kwargs)


def _run(func, args, kwargs, seen: Seen | None):
    name = func._schema.name
    tensors = [*_tensors((args, kwargs))]
    there = [one for one in tensors if isinstance(one, _Tensor)]
    if seen is not None:
        seen.calls[name] += 1
        mixes = name in _MAY_MIX and len(there) < len(tensors)
        if name in _WAITS or mixes or _takes_mask(name, args):
            seen.waits[name] += 1
    if name in ("aten::to", "aten::_to_copy"):
        return _moved(func, args, kwargs, seen)
    here = [one for one in tensors if not isinstance(one, _Tensor) and one.dim() > 0]
    if there and here and name not in _MAY_MIX:
        shapes = [tuple(one.shape) for one in here]
        raise RuntimeError(f"{name}: tensors on two devices, on the CPU: {shapes}")
    arguments, options = _with_tensors((args, kwargs), _inner)
    if options.get("device") is not None and torch.device(options["device"]).type == NAME:
        options["device"] = "cpu"
    result = func(*arguments, **options)
    if not func._schema.is_mutable:
        return _with_tensors(result, _Tensor)
    back = {id(one.inner): one for one in there}
    own = lambda one: back[id(one)] if id(one) in back else _Tensor(one)  # noqa: E731
    return _with_tensors(result, own)


def _inner(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.inner if isinstance(tensor, _Tensor) else tensor


# torch's own way through nested arguments knows many kinds of them, and took most of the time.


def _tensors(nested) -> Iterator[torch.Tensor]:
    """Those in lists, tuples and dictionaries."""
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, list | tuple):
        for one in nested:
            yield from _tensors(one)
    elif isinstance(nested, dict):
        for one in nested.values():
            yield from _tensors(one)


def _with_tensors(nested, change: Callable[[torch.Tensor], torch.Tensor]):
    """The same with each tensor changed; tuples of named fields stay such."""
    if isinstance(nested, torch.Tensor):
        return change(nested)
    if isinstance(nested, list | tuple):
        made = [_with_tensors(one, change) for one in nested]
        return nested._make(made) if hasattr(nested, "_make") else type(nested)(made)
    if isinstance(nested, dict):
        return {name: _with_tensors(one, change) for name, one in nested.items()}
    return nested


def _takes_mask(name: str, args) -> bool:
    """Whether a mask says which entries: CUDA counts them first, unless all get one number."""
    if name not in _MAY_MIX or name == "aten::copy_":
        return False
    if len(args) > 2 and args[2].numel() == 1:
        return False
    return any(one is not None and one.dtype == torch.bool for one in args[1])


def _moved(func, args, kwargs, seen: Seen | None):
    """`to` and `_to_copy`, which alone may change the device."""
    source = args[0]
    others = [one for one in args[1:] if isinstance(one, torch.Tensor)]
    device = others[0].device if others else _named(func, args, kwargs, "device")
    dtype = others[0].dtype if others else _named(func, args, kwargs, "dtype")
    device = source.device if device is None else torch.device(device)
    inner = source.inner if isinstance(source, _Tensor) else source
    result = inner if dtype is None else inner.to(dtype)
    if device.type == NAME:
        if result is inner and isinstance(source, _Tensor):
            return source
        return _Tensor(result.clone() if result is inner else result)
    if isinstance(source, _Tensor) and seen is not None:
        seen.waits["to the CPU"] += 1
    return result.clone() if result is inner and isinstance(source, _Tensor) else result


def _named(func, args, kwargs, name: str):
    place = _place(func, name)
    if place is None:
        return None
    return args[place] if place < len(args) else kwargs.get(name)


@functools.cache
def _place(func, name: str) -> int | None:
    names = [argument.name for argument in func._schema.arguments]
    return names.index(name) if name in names else None


_library = torch.library.Library("aten", "IMPL", "PrivateUse1")


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return _Tensor(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return _Tensor(torch.empty(size, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    inner = source.inner if isinstance(source, _Tensor) else source
    (target.inner if isinstance(target, _Tensor) else target).copy_(inner)
    return target


_library.impl("empty_strided", _empty_strided)
_library.impl("empty.memory_format", _empty)
_library.impl("_copy_from", _copy_from)
