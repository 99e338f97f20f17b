"""The command that opens the explorer in a browser."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from itda_core.config import code_directory

ADDRESS = "127.0.0.1"


def app(options: argparse.Namespace) -> int:
    """Serve the pages on this machine alone, until Ctrl+C; a first start trains the demo."""
    print(f"The explorer opens at http://{ADDRESS}:{options.port}. Ctrl+C ends it.", flush=True)
    command = [sys.executable, "-m", "streamlit", "run", str(_script())]
    command += ["--server.address", ADDRESS, "--server.port", str(options.port)]
    changed = {"ITDA_DEMO": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.call(command, env={**os.environ, **changed})


def _script() -> Path:
    """app.py: beside the package in a checkout, in a folder of its own where it is installed."""
    beside = code_directory() / "app.py"
    return beside if beside.exists() else code_directory() / "itda_explorer" / "app.py"
