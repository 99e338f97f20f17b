"""Types of models tried one by one, each in a process of its own."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tools.model_types.listing import ModelType

_PATIENCE = 120
"""Seconds for one type"""
_PRELOADED = [
    "tools.model_types.forward",
    "tools.model_types.tiny",
    "itda_core.model.built_in",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
]
"""What every type needs is imported once, before the processes fork"""


def in_processes(
    work: Callable[[ModelType, Path], Any], types: list[ModelType], out: Path, processes: int = 2
) -> Iterator[tuple[ModelType, Any]]:
    """Each type with what `work(type, out / type.name)` gave: a model that takes the interpreter
    down, or for ever, costs itself alone and gives the reason, a str."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with ThreadPoolExecutor(processes) as pool:
        found = pool.map(lambda one: _apart(context, work, one, out / one.name), types)
        yield from zip(types, found, strict=True)


def _apart(context, work, one: ModelType, folder: Path) -> Any:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, one, folder, sender))
    process.start()
    sender.close()
    deadline = time.monotonic() + _PATIENCE
    try:
        if not receiver.poll(deadline - time.monotonic()):
            return f"took more than {_PATIENCE} s"
        return receiver.recv()
    except EOFError:
        process.join()
        return f"its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()


def _work(work, one: ModelType, folder: Path, sender) -> None:
    sender.send(work(one, folder))
