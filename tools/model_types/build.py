"""Builds tiny models of many types, each in a process of its own, and tries them.

    python -m tools.model_types.build --out DIR [--types llama,bart.seq2seq,masked] [--processes 2]

One line a type: ok, or the reason why not.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tools.model_types.listing import KINDS, ModelType, every_type, find_types
from tools.model_types.processes import in_processes


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the models")
    parser.add_argument("--types", help='such as "llama,bart.seq2seq,masked" (default: all)')
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    types = list(find_types(options.types)) if options.types else every_type()
    built = Counter()
    for one, reason in build(types, options.out, options.processes):
        built[one.kind] += not reason
        print(f"{one.name:40} {reason or 'ok'}", flush=True)
    asked = Counter(one.kind for one in types)
    print(*(f"{kind}: {built[kind]} of {asked[kind]}" for kind in KINDS if asked[kind]), sep=", ")


def build(
    types: list[ModelType], out: Path, processes: int = 2
) -> Iterator[tuple[ModelType, str | None]]:
    """Each type with None, or with the reason why there is no model of it in `out`/`one.name`."""
    yield from in_processes(_build_and_try, types, out, processes)


def _build_and_try(one: ModelType, folder: Path) -> str | None:
    import torch

    from itda_core.model.built_in import quieten
    from tools.model_types.forward import try_forward
    from tools.model_types.tiny import save_tiny

    torch.set_num_threads(1)
    quieten()
    try:
        step = "not built"
        save_tiny(one, folder)
        step = "built, but"
        try_forward(one, folder)
    except Exception as error:  # whatever transformers raises for a type is what is reported
        return f"{step}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


if __name__ == "__main__":
    main()
