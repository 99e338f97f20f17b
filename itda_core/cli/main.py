"""The command line: itda COMMAND, or python -m itda_core COMMAND.

Each command prints a table for people, or one JSON object with --json. Progress and errors go
to standard error. Exit codes: 0 done, 2 wrong usage or input, 1 anything else.
"""

import os
import sys

from itda_core.cli.parser import make_parser
from itda_core.errors import ItdaError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = make_parser().parse_args(arguments)
    from itda_core.cli import app, commands
    from itda_core.cli import exchange as exchange_commands
    from itda_core.cli import measure as measuring_commands

    modules = (app, measuring_commands, exchange_commands, commands)
    functions = {name: value for module in modules for name, value in vars(module).items()}
    try:
        return functions[options.command](options)
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
        if os.environ.get("ITDA_DEBUG"):
            raise
        print(
            f"Error: {type(error).__name__}: {error}. This should not happen; set ITDA_DEBUG=1 "
            "to see where it does.",
            file=sys.stderr,
        )
        return 1
