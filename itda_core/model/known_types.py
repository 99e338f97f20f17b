"""What is known of a type of model before one is loaded: a sweep over all types found it.

types.json is written by `python -m tools.model_types.sweep`, with docs/models.md.
"""

import functools
import json
from pathlib import Path

from itda_core.model.abilities import Abilities

FILE = Path(__file__).parent / "types.json"
SWEEP = "sweep"
"""The entry that says why a type can't be read block by block"""


def known_type(class_name: str) -> Abilities | None:
    """What a tiny model of this class was proved to do right; None for a class that was not tried.

    class_name: as a configuration's `architectures` has it, "LlamaForCausalLM", with the part that
    is used, "T5ForConditionalGeneration:encoder".
    """
    reasons = _types().get(class_name)
    if reasons is None:
        return None
    if "capture" in reasons:
        return Abilities.none("capture", reasons["capture"])
    return Abilities(**{name: why for name, why in reasons.items() if name != SWEEP})


def known_sweep(class_name: str) -> str | None:
    """Why a model of this class can't be read block by block, as a tiny one showed; empty where it
    can, None for a class that was not tried."""
    reasons = _types().get(class_name)
    return None if reasons is None else reasons.get(SWEEP, "")


@functools.cache
def _types() -> dict[str, dict[str, str]]:
    return json.loads(FILE.read_text(encoding="utf-8"))["types"]
