"""What `pip install .` gives: the package, its command, the pages, with the right dependencies."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since building leaves files behind."""
    folder = tmp_path_factory.mktemp("package")
    left_out = shutil.ignore_patterns(".*cache*", ".venv", ".git", "tests", "benchmarks", "docs")
    shutil.copytree(REPOSITORY, folder / "source", ignore=left_out)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(folder), str(folder / "source")], check=True)
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs lines of Python with the installed package, in a folder that has nothing to do with it;
    gives what they print."""
    target, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(target)
    environment = {**os.environ, "PYTHONPATH": str(target), "XDG_DATA_HOME": str(elsewhere)}
    environment.pop("ITDA_DATA", None)

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_package_of_the_tree_is_packed():
    packed = set(PROJECT["tool"]["setuptools"]["packages"])
    core = {".".join(path.parent.relative_to(REPOSITORY).parts) for path in _inits("itda_core")}
    pages = {".".join(path.parent.relative_to(REPOSITORY).parts) for path in _inits("pages")}
    expected = core | {f"itda_explorer.{name}" for name in pages}
    assert packed == expected | {"itda_core.small_models", "itda_explorer"}


def _inits(folder):
    return (REPOSITORY / folder).rglob("__init__.py")


def test_what_the_package_requires_is_what_requirements_txt_says(wheel):
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith("METADATA")]
        metadata = opened.read(name).decode()
    required = re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    plain = [one for one in required if "extra ==" not in one]
    assert {_bounds(one) for one in plain} == {_bounds(one) for one in listed}


def test_the_extras_are_what_the_tests_are_run_with():
    lines = (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    listed = {_bounds(line) for line in lines if line and not line.startswith("#")}
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"nnsight", "transformer-lens", "ray"}
    assert {_bounds(one) for extra in extras.values() for one in extra} <= listed


def test_the_lock_has_one_version_within_the_bounds_of_all_that_is_required():
    lines = (REPOSITORY / "requirements-lock.txt").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    for file in ("requirements.txt", "requirements-models.txt", "requirements-dev.txt"):
        for line in (REPOSITORY / file).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                required = Requirement(line)
                assert locked[required.name.lower()] in required.specifier, line


def _bounds(requirement):
    """Its name and its bounds in any order."""
    name, bounds = re.fullmatch(r"([\w.-]+?)\s*([<>=!].*)", requirement).groups()
    return name.lower(), frozenset(bounds.replace(" ", "").split(","))


def test_the_package_is_imported_from_anywhere_and_writes_into_the_users_folder(installed):
    code = (
        "import itda_core, itda_core.data_folder as c; print(itda_core.jaccard, c.data_directory())"
    )
    printed = installed("-c", code)
    assert "function jaccard" in printed
    assert "itda-explorer" in printed
    assert "site" not in printed.rpartition(" ")[2]


def test_the_small_models_come_with_it(installed):
    models = json.loads(installed("-m", "itda_core", "models", "--json"))["models"]
    small = [model for model in models if model["model"].startswith("tiny-")]
    assert len(small) == 10
    assert {model["where"] for model in small} == {"built in"}


def test_the_command_opens_the_pages_that_are_packed(installed):
    code = "from itda_core.cli import app; p = app._script(); print(p, p.exists(), p.parent)"
    script, exists, folder = installed("-c", code).split()
    assert exists == "True"
    assert script.endswith("itda_explorer/app.py")
    packed = {path.name for path in (Path(folder) / "pages").glob("*.py")}
    assert packed == {path.name for path in (REPOSITORY / "pages").glob("*.py")}
    assert (Path(folder) / ".streamlit" / "config.toml").exists()
    for pattern in ("*.js", "*.css"):
        ours = {path.name for path in (REPOSITORY / "pages").rglob(pattern)}
        assert {path.name for path in (Path(folder) / "pages").rglob(pattern)} == ours
    assert PROJECT["project"]["scripts"] == {"itda": "itda_core.cli.main:main"}
