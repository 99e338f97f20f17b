"""The command that opens the explorer in a browser."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from itda_core.data_folder import code_directory, data_directory, is_checkout

ADDRESS = "127.0.0.1"
"""This machine alone; at others the pages ask for a token (pages/components/exposure.py)"""


def app(options: argparse.Namespace) -> int:
    """Serve the pages until Ctrl+C, on this machine alone where nothing else is said; a first start
    trains the demo."""
    if os.environ.get("ITDA_DEVICE") and not options.device:
        from itda_core.devices import best_device

        best_device()  # is refused before there is a page that could only say so
    if os.environ.get("ITDA_MEMORY") and not options.memory:
        from itda_core.memory import memory_setting

        memory_setting()
    _check_folder()
    print(
        f"The explorer opens at http://{options.address}:{options.port}. Ctrl+C ends it.",
        flush=True,
    )
    # -P: a file in the folder where this is called must not be taken for a module.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(_script())]
    command += ["--server.address", options.address, "--server.port", str(options.port)]
    environment = {**os.environ, "ITDA_DEMO": "1", "OMP_WAIT_POLICY": "passive"}
    if options.device:
        environment["ITDA_DEVICE"] = options.device
    if options.memory:
        environment["ITDA_MEMORY"] = f"{options.memory}B"
    if os.name == "posix":  # the explorer takes this process' place, and its signals
        os.execve(sys.executable, command, environment)
    with subprocess.Popen(command, env=environment) as explorer:
        while True:
            try:
                return explorer.wait()
            except KeyboardInterrupt:  # it has heard of it too, and brings a job to its checkpoint
                continue


def _check_folder() -> None:
    """Raises StoreNotOursError where another explorer has the data folder: else only a page would
    say so."""
    from itda_core.store.database import FILE_NAME, check_not_taken

    check_not_taken(data_directory() / FILE_NAME)


def _script() -> Path:
    """app.py: beside the package in a checkout, in a folder of its own where it is installed."""
    folder = code_directory() if is_checkout() else code_directory() / "itda_explorer"
    return folder / "app.py"
