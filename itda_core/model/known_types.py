"""What is known of a type of model before one is loaded: a sweep over all types found it.

types.json is written by `python -m tools.model_types.sweep`, with docs/models.md.
"""

import functools
import json
from pathlib import Path

from itda_core.model.abilities import Abilities

FILE = Path(__file__).parent / "types.json"


def known_type(class_name: str) -> Abilities | None:
    """What a tiny model of this class was proved to do right; None for a class that was not tried.

    class_name: as a configuration's `architectures` has it, "LlamaForCausalLM".
    """
    found = _types().get(class_name)
    if found is None:
        return None
    if found["abilities"] is None:
        return Abilities.none("capture", found["refused"])
    return Abilities(**found["abilities"])  # their reasons alone: the rest is each model's own


@functools.cache
def _types() -> dict[str, dict]:
    return json.loads(FILE.read_text(encoding="utf-8"))["types"]
