"""Running commands of the command line in the tests' own process, and reading what they print."""

import re
import signal
from contextlib import contextmanager

from itda_core.cli.main import main
from tests.support.trained_runs import strict_json


@contextmanager
def signal_handlers_kept():
    """A training takes over the signals that stop it; the tests want them back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_command(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # how argparse ends
        code = stopped.code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return code, printed.out, printed.err


def train_options(config):
    """The command line's options for a configuration."""
    return [
        "--model", config.model.name, "--corpus", config.corpus.name,
        "--layers", ",".join(map(str, config.layers)), "--max-tokens", config.max_tokens,
        "--context-length", config.context_length, "--max-atoms", config.max_atoms,
        "--l0", config.l0, "--selection", config.selection, "--offset", config.offset,
        "--pursuit", config.pursuit, "--budget", config.budget, "--threshold", config.threshold,
        "--seed", config.seed, "--explored-tokens", config.explored_tokens,
        "--batch-tokens", config.batch_tokens,
    ]  # fmt: skip


def one_json(result):
    """The single JSON object that a command printed, and nothing else."""
    code, out, _ = result
    assert code == 0
    assert out.count("\n") == 1
    return strict_json(out)


def table(result):
    """A printed table as a list of rows, each a list of cells; the head first."""
    code, out, _ = result
    assert code == 0
    return [re.split(r" {2,}", line.strip()) for line in out.splitlines()]
