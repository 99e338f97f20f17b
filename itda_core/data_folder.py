"""Where everything is written, and where the code lies."""

import os
from pathlib import Path


def data_directory() -> Path:
    """Where everything is written: the environment variable ITDA_DATA, else `data/` of a checkout,
    else the user's own data folder."""
    chosen = os.environ.get("ITDA_DATA")
    if chosen:
        return Path(os.path.expanduser(chosen))  # noqa: PTH111
    if is_checkout():
        return code_directory() / "data"
    import platformdirs

    return platformdirs.user_data_path("itda-explorer", appauthor=False)


def code_directory() -> Path:
    """The folder that holds the package: that of a checkout, or of installed packages."""
    return Path(__file__).resolve().parent.parent


def is_checkout() -> bool:
    """Whether the package lies in its own repository, and not among installed ones."""
    return (code_directory() / "pages" / "overview.py").exists()
