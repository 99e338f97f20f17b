"""What a server of children does once before it forks any, so that a child takes the time of its
work alone: everything is imported, and what is found or compiled at first use is there.

It is done by being imported, since a server imports and does nothing else.
"""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import numba
import torch

import pages.components.explorer  # noqa: F401
from itda_core.cli.main import main
from tests.support.command_line import train_options
from tests.support.tiny_models import TOKENIZER_TEXT, save_tiny_model
from tests.support.trained_runs import tiny_config

torch.set_num_threads(1)  # tests run side by side, and threads do not come through a fork
numba.set_num_threads(1)


def _warm(folder: Path) -> None:
    model = save_tiny_model(folder / "model")
    corpus = folder / "texts.txt"
    words = TOKENIZER_TEXT.split()
    texts = [f"{number}: {' '.join(words[number : number + 30])}" for number in range(40)]
    corpus.write_text("\n\n".join(texts), encoding="utf-8")
    for selection in ("coverage", "threshold"):
        config = tiny_config(
            model, corpus, selection=selection, layers=(1,), max_tokens=200, max_atoms=40,
            explored_tokens=100,
        )  # fmt: skip
        main(["train", *map(str, train_options(config)), "--no-scores", "--dtype", "float32"])
    run = next((folder / "data" / "runs").glob("tiny*"), None) or next(
        (folder / "data" / "runs").glob("[!.]*")
    )
    main(["evaluate", run.name, "--max-tokens", "100", "--save"])
    main(["rebuild"])


def _quietly() -> None:
    before = os.environ.get("ITDA_DATA")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ITDA_DATA"] = f"{folder}/data"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            _warm(Path(folder))
    os.environ.pop("ITDA_DATA")
    if before is not None:
        os.environ["ITDA_DATA"] = before


_quietly()
