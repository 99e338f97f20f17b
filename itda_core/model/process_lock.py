"""The one lock around what is the whole process's: sessions of the explorer are its threads.

transformers finds its modules when they are first asked for, which two threads at once break, and
while it builds a model it replaces functions of torch and changes the default data type, which a
forward pass in another thread would see. Hooks sit on modules that several threads share.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

PROCESS_LOCK = threading.RLock()
"""Held while torch or transformers is imported, a model is loaded, or one computes. A thread that
holds it may take it again."""


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which holds the lock while it runs."""

    @functools.wraps(function)
    def held(*arguments: Any, **options: Any) -> Any:
        with PROCESS_LOCK:
            return function(*arguments, **options)

    return held
