"""A program in place of Python's, by which a queue starts jobs that compute nothing."""

import sys
from pathlib import Path

_PROGRAM = """#!{python}
import os, pathlib, sys, time
from itda_core.jobs.claim import claim_job
from itda_core.errors import ItdaError
directory = pathlib.Path(sys.argv[sys.argv.index("--progress") + 1]).parent
try:
    claim_job()
except ItdaError as error:
    sys.exit(str(error))
with (directory / "begun").open("a") as file:
    file.write(f"{{{notes}}}\\n")
{waits}
with (directory / "progress.jsonl").open("a") as file:
    file.write('{{"stage": "done"}}\\n')
"""


def stand_in(file: Path, notes: str, waits: str) -> Path:
    """Write the program, which claims its job, adds a line to `begun`, and says at the end that the
    job is done. notes: that line, as an expression; waits: what it does in between."""
    file.write_text(_PROGRAM.format(python=sys.executable, notes=notes, waits=waits))
    file.chmod(0o755)
    return file
