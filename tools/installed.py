"""What is installed here besides the explorer: `python -m tools.installed lock` writes the exact
versions to requirements-lock.txt, `python -m tools.installed licences` prints who allows what.

The lock says what the tests of this revision ran with, so that a run of them years from now can be
told from one with newer packages; `.ci/run` installs by it. It is made anew by `make lock`.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements-lock.txt"
_OWN = {"itda-explorer", "pip"}
_HEAD = """\
# The versions that the tests ran with; made by `make lock`, used by .ci/run as constraints.
"""


def packages() -> Iterator[Distribution]:
    """All that is installed, by name, without the explorer itself and pip."""
    found = {_plain(one.metadata["Name"]): one for one in distributions()}
    for name in sorted(set(found) - _OWN):
        yield found[name]


def lock() -> str:
    """One line a package: its name and exact version, without what says for which device it was
    built, such as torch's "+cpu"."""
    lines = (
        f"{_plain(one.metadata['Name'])}=={one.version.partition('+')[0]}\n" for one in packages()
    )
    return _HEAD + "".join(lines)


def licence(package: Distribution) -> str:
    """What a package says of its licence, in a line: the SPDX expression, else the classifiers,
    else the first line of its own words; "not said" where there is none."""
    said = package.metadata
    if expression := said.get("License-Expression"):
        return expression
    classes = [line.split(" :: ") for line in said.get_all("Classifier") or []]
    named = [parts[-1] for parts in classes if parts[0] == "License" and len(parts) > 2]
    words = (said.get("License") or "").strip().splitlines()
    return ", ".join(named) or (words[0] if words else "not said")


def _plain(name: str) -> str:
    """A package's name as the index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> int:
    match arguments:
        case ["lock"]:
            LOCK.write_text(lock(), encoding="utf-8")
        case ["licences"]:
            for one in packages():
                print(f"{_plain(one.metadata['Name']):32} {one.version:16} {licence(one)}")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
