"""What the explorer can do with every type of model that transformers knows: docs/models.md.

    python -m tools.model_types.sweep --out DIR [--types llama,bart.seq2seq,masked] [--write]

Each type is built tiny and with random weights, loaded as a user's model would be, proves itself
(itda_core/model/proof.py), and what it then claims is checked on other texts (check.py).
"""

import argparse
import json
from pathlib import Path

from tools.model_types.listing import ModelType, every_type, find_types
from tools.model_types.processes import in_processes


def sweep(one: ModelType, folder: Path) -> dict[str, str]:
    """What was found of a type: `built`, `refused`, each of the abilities' reasons, `wrong`."""
    import torch

    from itda_core.errors import ModelError
    from itda_core.model.built_in import quieten
    from itda_core.model.loading import load_model
    from tools.model_types.check import WrongNumbers, check
    from tools.model_types.tiny import save_tiny

    torch.set_num_threads(1)
    quieten()
    found = {"type": one.model_type, "kind": one.kind, "class": one.class_name}
    try:
        if not (folder / "config.json").exists():
            save_tiny(one, folder)
    except Exception as error:
        return found | {"not built": _first_line(error)}
    model = None
    for name in (str(folder), f"{folder}:encoder"):
        try:
            model = load_model(name, device="cpu")
            break
        except ModelError as error:
            found["refused"] = str(error).replace(str(folder), "MODEL")
            if not found["refused"].endswith(":encoder"):
                break
    if model is None:
        return found
    found["name"] = name.replace(str(folder), "MODEL")
    found.pop("refused", None)
    found |= {
        row: getattr(model.abilities, row)
        for row in ("next_tokens", "splicing", "unembedding", "cached_steps")
    }
    found |= {"begins_after": len(model.abilities.begins_after), "layers": model.n_layers}
    try:
        check(model, one, folder)
    except WrongNumbers as error:
        found["wrong"] = str(error)
    except Exception as error:
        found["wrong"] = f"{_first_line(error)}"
    return found


def _first_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    types = list(find_types(options.types)) if options.types else every_type()
    results = []
    for one, found in in_processes(sweep, types, options.out, options.processes):
        results.append(found)
        old = (
            json.loads((options.out / "results.json").read_text())
            if (options.out / "results.json").exists()
            else []
        )
        found.update({"type": one.model_type, "kind": one.kind, "class": one.class_name})
        merged = {(x["type"], x["kind"]): x for x in old if "type" in x} | {
            (found["type"], found["kind"]): found
        }
        (options.out / "results.json").write_text(json.dumps([*merged.values()], indent=1))
        print(
            one.name,
            {k: v for k, v in found.items() if k not in ("type", "kind", "class")},
            flush=True,
        )


if __name__ == "__main__":
    main()
