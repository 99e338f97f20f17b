"""From the server's start to its end: what is said, the browser, and the explorer's close."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamlit import config

from itda_core.events import write_events
from pages.components.explorer import close_opened
from pages.components.exposure import is_exposed, say_token, token


@asynccontextmanager
async def serving(_app: Any) -> AsyncIterator[None]:
    """For `st.App`: the token is printed where there is one, and the browser opened unless the
    server is headless. At the end the explorer is closed here, while the server still waits."""
    write_events()
    _end_by_itself()
    say_token()
    if not config.get_option("server.headless"):
        asyncio.get_running_loop().call_later(1, _open_browser)
    yield
    await asyncio.to_thread(close_opened)


def _end_by_itself() -> None:
    """uvicorn sends the signal that ended it to the process once more, which would then say
    "Aborted!" and leave a code of failure: to end the explorer by Ctrl+C is no failure."""
    for number in (signal.SIGINT, signal.SIGTERM):
        server = getattr(signal.getsignal(number), "__self__", None)
        if not hasattr(server, "should_exit"):  # of a test, which has none
            continue

        def end(number: int, _frame: Any, server: Any = server) -> None:
            server.force_exit = server.should_exit and number == signal.SIGINT
            server.should_exit = True

        signal.signal(number, end)


def _open_browser() -> None:
    from streamlit.cli_util import open_browser

    address = config.get_option("server.address") or "localhost"
    host = "localhost" if address in ("0.0.0.0", "::") else address
    query = f"?token={token()}" if is_exposed() else ""
    open_browser(f"http://{host}:{config.get_option('server.port')}/{query}")
