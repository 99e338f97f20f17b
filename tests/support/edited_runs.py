"""Runs that say something else of themselves than what was trained."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itda_core.sealed import seal


def edit_about(directory: Path, config: Mapping[str, Any] | None = None, **entries: object) -> None:
    """Change entries of config.json, and settings of its `config`; the run is sealed again, since
    it would count as damaged."""
    file = directory / "config.json"
    about = json.loads(file.read_text()) | entries
    about["config"] |= config or {}
    file.write_text(json.dumps(about))
    seal(directory)


def edited_copy(
    directory: Path, name: str, config: Mapping[str, Any] | None = None, **entries: object
) -> Path:
    """A run beside another one, with its name as its ID and other entries in config.json."""
    copy = Path(shutil.copytree(directory, directory.with_name(name)))
    edit_about(copy, config, run_id=name, **entries)
    return copy
