"""Many people on the Latents page at once: seconds of a click, and what it costs the server.

.venv/bin/python -m benchmarks.speed.sessions [--data FOLDER --sessions 20 --seconds 120]

Each session is a websocket that speaks the browser's protocol, so that a click costs no browser:
what is measured is the server.
"""

import argparse
import random
import re
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from websockets.sync.client import ClientConnection, connect

from benchmarks.common.harness import Report
from benchmarks.speed.drawn import L0, draw_scores, make_runs
from itda_core.store.store import Store
from tools.browser_setup import running_app

P95_SECONDS = 1.0
THINK_SECONDS = (10.0, 2.0)
"""Between an answer and the next click, on average: of people who look at each latent, and of
people who leaf through them"""
WARM_SECONDS = 30.0
"""Of clicks that are not measured: what is read once is read, and all sessions were there"""
_CLICKS = {"Next": 6, "Previous": 1, "Random": 2, "Next page": 1}
"""What is clicked, by how often"""


@dataclass
class Session:
    """One open tab."""

    socket: ClientConnection
    query: str
    page: str
    buttons: dict[str, str] = field(default_factory=dict)
    """ids by label, of the newest run of the script"""
    said: str = ""
    """the page's line that names the latent"""

    def run(self, pressed: str = "") -> float:
        """Have the page's script run, as after a click on a button; returns the seconds until its
        end has come."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.page_script_hash = self.page
        states = WidgetStates()
        if pressed:
            states.widgets.add(id=self.buttons[pressed], trigger_value=True)
        message.rerun_script.widget_states.CopyFrom(states)
        return self.ask(message)

    def ask(self, message: BackMsg) -> float:
        """Send it; returns the seconds until the script that it starts has ended."""
        started = time.perf_counter()
        self.socket.send(message.SerializeToString())
        while not self._take(ForwardMsg.FromString(self.socket.recv(timeout=120))):
            pass
        return time.perf_counter() - started

    def _take(self, message: ForwardMsg) -> bool:
        """Whether it is the end of a script's run."""
        kind = message.WhichOneof("type")
        if kind == "navigation":
            self.page = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            element = message.delta.new_element
            if element.WhichOneof("type") == "button":
                self.buttons[element.button.label] = element.button.id
            elif element.WhichOneof("type") == "markdown":
                text = element.markdown.body.replace("\\", "")
                self.said = text if re.search(r" · latent \d+ · ", text) else self.said
        elif kind == "script_finished":
            return message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
        return False


@contextmanager
def open_session(address: str, query: dict[str, str]) -> Iterator[Session]:
    """A tab that has opened the Latents page."""
    url = f"{address.replace('http', 'ws')}/_stcore/stream"
    with connect(url, subprotocols=["streamlit"], max_size=None) as socket:
        session = Session(socket, urllib.parse.urlencode(query), "")
        message = BackMsg()
        message.rerun_script.query_string = session.query
        message.rerun_script.page_name = "latents"
        session.ask(message)
        yield session


def clicked(
    address: str, run_ids: list[str], sessions: int, seconds: float, think: float
) -> tuple[list[float], int]:
    """Seconds of all clicks, and how many changed nothing. think: seconds between an answer and
    the next click, on average."""
    taken: list[float] = []
    silent: list[str] = []
    starts = [
        {"run": run_ids[n % len(run_ids)], "latent": str(17 * n + 3)} for n in range(sessions)
    ]

    def use(session: Session, number: int) -> None:
        draw = random.Random(number)
        time.sleep(draw.random() * think)
        while time.perf_counter() < until:
            [label] = draw.choices([*_CLICKS], [*_CLICKS.values()])
            before = session.said
            taken.append(session.run(label))
            if session.said == before:
                silent.append(label)
            time.sleep(draw.expovariate(1 / think) if think else 0)

    with ExitStack() as stack:
        opened = [stack.enter_context(open_session(address, start)) for start in starts]
        until = time.perf_counter() + seconds
        threads = [
            threading.Thread(target=use, args=[session, number])
            for number, session in enumerate(opened)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return taken, len(silent)


def _server(address: str) -> psutil.Process:
    port = int(address.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        if any(one.laddr.port == port for one in child.net_connections("tcp")):
            return child
    raise AssertionError(f"No process of ours listens on {address}.")


def _held(server: psutil.Process) -> dict[str, float]:
    """What would grow if sessions left something behind."""
    memory = round(server.memory_info().rss / 1e9, 2)
    return {"threads": server.num_threads(), "open files": server.num_fds(), "memory, GB": memory}


def measure(data: Path, sessions: int, seconds: float, think: float) -> dict[str, float]:
    """Of clicks of so many sessions at once on a data folder's dictionaries."""
    store = Store(data / "explorer.duckdb")
    store.import_new(data / "runs")
    run_ids = store.runs.table()["run_id"].tolist()
    store.close()
    with running_app(data) as address:
        with open_session(address, {"run": run_ids[0]}):  # what is loaded once
            pass
        server = _server(address)
        clicked(address, run_ids, sessions, WARM_SECONDS, think)
        held, before, started = _held(server), sum(server.cpu_times()[:2]), time.perf_counter()
        taken, silent = clicked(address, run_ids, sessions, seconds, think)
        used = sum(server.cpu_times()[:2]) - before
        wall = time.perf_counter() - started
        figures = np.percentile(taken, [50, 95, 100])
        return {
            "sessions": sessions,
            "seconds between clicks": think,
            "clicks": len(taken),
            "clicks that showed nothing new": silent,
            "median, s": figures[0],
            "95th percentile, s": figures[1],
            "slowest, s": figures[2],
            "server's processor time, s a click": used / max(1, len(taken)),
            "cores busy with it": used / wall,
            **{what: f"{held[what]:g} → {value:g}" for what, value in _held(server).items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data folder with dictionaries, else drawn")
    parser.add_argument("--codes", type=int, default=20_000_000, help="of the drawn ones, in all")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--no-report", action="store_true", help="print the figures alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="itda-sessions-") as temporary:
        data = options.data or Path(temporary)
        if options.data is None:
            for run in make_runs(data / "runs", 10, options.codes // 10 // L0):
                draw_scores(run)
        rows = [measure(data, options.sessions, options.seconds, think) for think in THINK_SECONDS]
    report = Report(
        "sessions",
        "Many sessions",
        "Sessions on the Latents page that click Next, Previous, Random and Next page, each on its "
        "own, by the browser's protocol, so many seconds after each answer, on average.",
    )
    report.table("Clicks on Latents", rows)
    for row in rows:
        worst, think = row["95th percentile, s"], row["seconds between clicks"]
        what = f"a click on Latents, 95th percentile of {options.sessions} sessions that click "
        what += f"every {think:g} s"
        report.target(what, f"≤ {P95_SECONDS:g} s", f"{worst:.2f} s", worst <= P95_SECONDS)
    if not options.no_report:
        report.save()


if __name__ == "__main__":
    main()
