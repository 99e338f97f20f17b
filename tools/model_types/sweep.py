"""What the explorer can do with every type of model that transformers knows.

    python -m tools.model_types.sweep --out DIR --write       all: docs/models.md, and what ships
    python -m tools.model_types.sweep --out DIR --types a,b   some, one line a type

Each type is built tiny and with random weights, loaded as a user's model would be, proves itself
(itda_core/model/proof.py), and what it then claims is checked on other texts (check.py).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.model_types.listing import ModelType, every_type, find_types
from tools.model_types.processes import in_processes
from tools.model_types.report import Found, write_reports


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the models")
    parser.add_argument("--types", help='such as "llama,bart.seq2seq,masked" (default: all)')
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/models.md")
    options = parser.parse_args(arguments)
    types = list(find_types(options.types)) if options.types else every_type()
    found = []
    for one in sweep(types, options.out, options.processes):
        found.append(one)
        print(f"{one.type.name:40} {one.in_words}", flush=True)
    if options.write:
        write_reports(found)
    wrong = [one.type.name for one in found if one.wrong]
    if wrong:
        sys.exit(f"Claims that do not hold: {', '.join(wrong)}.")


def sweep(types: list[ModelType], out: Path, processes: int = 2) -> Iterator[Found]:
    """What was found of each type. out: folder for the models, built where they are not there."""
    for one, found in in_processes(_try, types, out, processes):
        yield Found(one, **(found if isinstance(found, dict) else {"not_built": found}))


def _try(one: ModelType, folder: Path) -> dict[str, Any]:
    """The fields of `Found`, in a process of its own."""
    import torch

    from itda_core.errors import ModelError
    from itda_core.model.built_in import quieten
    from itda_core.model.loading import load_model
    from tools.model_types.check import check
    from tools.model_types.swept import why_not_swept

    torch.set_num_threads(1)
    quieten()
    try:
        _build(one, folder)
    except Exception as error:  # whatever transformers raises for a type is what is reported
        return {"not_built": _in_a_line(error)}
    refusal = ""
    for part in ("", ":encoder"):
        try:
            model = load_model(f"{folder}{part}", device="cpu")
        except ModelError as error:
            refusal = str(error).replace(str(folder), "MODEL")
            if refusal.endswith(":encoder"):
                continue
            return {"refused": refusal}
        try:
            check(model, one, folder)
        except ModelError as error:  # a text that it can't read, and says so
            return {"refused": str(error).replace(str(folder), "MODEL")}
        except Exception as error:
            return {"wrong": _in_a_line(error), "abilities": model.abilities}
        found = {"abilities": model.abilities, "sites": model.sites, "part": part}
        return {**found, "layers": model.n_layers, "not_swept": why_not_swept(model)}
    return {"refused": refusal}


def _build(one: ModelType, folder: Path) -> None:
    from tools.model_types.tiny import save_tiny

    if not (folder / "tokenizer.json").exists():  # which is saved last
        save_tiny(one, folder)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


if __name__ == "__main__":
    main()
