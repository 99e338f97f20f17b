"""Which file of a model's folder is damaged, for the sentence that says why it can't be loaded."""

import json
from pathlib import Path

from itda_core.errors import ModelError
from itda_core.model.weight_files import check_file

_REMEDY = "Get the model again."


def damage_of(folder: Path) -> str:
    """A sentence on the first damaged file of a folder, with the remedy; empty where none is found.
    Of weights the headers are read, and of JSON files all."""
    for path in sorted(folder.glob("*.json")):
        if why := _why_no_json(path):
            return f"{path} is damaged: {why}. {_REMEDY}"
        if lacking := _lacking_parts(path):
            return f"{path} names {lacking}, which is not there. {_REMEDY}"
    for path in sorted(folder.glob("*.safetensors")):
        try:
            check_file(path)
        except ModelError as error:
            return str(error)
        except OSError as error:
            return f"{path} can't be read ({error.strerror}). Make it readable."
    return ""


def _why_no_json(path: Path) -> str:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        return f"it is no JSON ({error})"
    except OSError as error:
        return f"it can't be read ({error.strerror})"
    return ""


def _lacking_parts(path: Path) -> str:
    """The first file that an index of weights names and the folder lacks."""
    if not path.name.endswith(".safetensors.index.json"):
        return ""
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        return next((name for name in names if not (path.parent / name).exists()), "")
    except (KeyError, TypeError, AttributeError, ValueError, OSError):
        return ""
