"""The command line: itda COMMAND, or python -m itda_core COMMAND.

Each command prints a table for people, or one JSON object with --json. Progress and errors go
to standard error. Exit codes: 0 done, 2 wrong usage or input, 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Callable

from itda_core.cli.parser import parse
from itda_core.data_folder import data_directory
from itda_core.errors import ItdaError, SettingError
from itda_core.files.disk_errors import system_error
from itda_core.jobs.claim import claim_job


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        claim_job()
        options = parse(arguments)
        return _function(options.command)(options)
    except SettingError as error:
        print(f"Error: {error.named('option')}", file=sys.stderr)
        return error.exit_code
    except ItdaError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 1
    except Exception as error:
        if told := system_error(error, data_directory()):
            print(f"Error: {told}", file=sys.stderr)
            return told.exit_code
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if os.environ.get("ITDA_DEBUG"):
        raise error
    print(
        f"Error: {type(error).__name__}: {error}. This should not happen; set ITDA_DEBUG=1 "
        "to see where it does.",
        file=sys.stderr,
    )
    return 1


def _function(name: str) -> Callable[[argparse.Namespace], int]:
    """What does a command; imported once its options are right, so that --help is fast."""
    from itda_core.cli import app, commands, doctor, latents
    from itda_core.cli import exchange as exchange_commands
    from itda_core.cli import measure as measuring_commands

    modules = (commands, exchange_commands, measuring_commands, latents, app, doctor)
    return next(vars(module)[name] for module in modules if name in vars(module))
