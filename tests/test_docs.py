"""What README.md and docs/ say of the code is what the code says."""

import argparse
import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import itda_core
from itda_core import errors
from itda_core.analysis.latent_map import MAP_FILE
from itda_core.cli.main import main
from itda_core.cli.parser import make_parser
from itda_core.errors import ItdaError
from itda_core.evaluation.by_l0 import EVALUATION_TOKENS
from itda_core.glossary import GLOSSARY
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.results import EVALUATION_FILE, PROBING_FILE
from itda_core.runs.run import ALL_FILES
from itda_core.similarity.measures import MEASURES
from pages.components.evaluate.columns import COLUMNS
from pages.components.explorer import DEMO_LAYERS, demo_config
from tests.support.command_line import signal_handlers_kept
from tools.write_glossary import with_glossary

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.glob("*.md"))]
CODE = [
    REPOSITORY / "app.py",
    *sorted((REPOSITORY / "itda_core").rglob("*.py")),
    *sorted((REPOSITORY / "pages").rglob("*.py")),
]
PAGES = [path for path in sorted((REPOSITORY / "pages").glob("*.py")) if path.stem != "__init__"]
LOCK = "requirements-lock.txt"
"""All that comes with what is asked for"""
REQUIREMENTS = sorted(set(REPOSITORY.glob("requirements*.txt")) - {REPOSITORY / LOCK})
RUN_FILES = [*ALL_FILES, EVALUATION_FILE, PROBING_FILE, MAP_FILE, SCORES_FILE]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """The text below each heading of a document, down to the next one, by the heading."""
    parts = re.split(r"^#+ (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text: their cells, by the first cell without its backticks."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    return {first.strip("`"): [first, *others] for first, *others in cells}


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = make_parser()._actions
    return next(one for one in actions if isinstance(one, argparse._SubParsersAction)).choices


def options() -> Iterator[tuple[str, argparse.Action]]:
    """Every option and argument of every command, `--help` left out."""
    for name, command in commands().items():
        yield from ((name, one) for one in command._actions if one.dest != "help")


def name_of(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else action.dest.upper()


def row_of(command: str, action: argparse.Action) -> list[str]:
    """The row of docs/cli.md that documents an option; empty where there is none."""
    told = sections(read(DOCS / "cli.md"))
    for section in (command, "Every command"):
        found = rows(told.get(section, "")).get(name_of(action))
        if found:
            return found
    return []


def default_of(action: argparse.Action) -> str | None:
    """An option's default as docs/cli.md writes it; None where words have to say it."""
    if action.nargs == 0:
        return "off"
    if isinstance(action.default, Path):
        return f"`{action.default.name}` in the data folder"
    return None if action.default is None else f"`{action.default}`"


# The command line


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_section_and_a_row_of_its_own(command):
    text = read(DOCS / "cli.md")
    assert command in sections(text), f"docs/cli.md has no section {command}"
    assert f"| [`{command}`](#{command}) |" in text


@pytest.mark.parametrize("command", commands())
def test_every_command_shows_its_usage_and_its_json(command):
    section = sections(read(DOCS / "cli.md"))[command]
    positional = [one for one in commands()[command]._actions if not one.option_strings]
    words = [name_of(one) + ("…" if one.nargs == "+" else "") for one in positional]
    assert f"`{' '.join(['itda', command, *words])}" in section
    assert "JSON: " in section


@pytest.mark.parametrize(
    ("command", "action"),
    [pytest.param(*one, id=f"{one[0]} {name_of(one[1])}") for one in options()],
)
def test_every_option_stands_with_its_default_and_its_choices(command, action):
    row = row_of(command, action)
    assert row, f"docs/cli.md does not have {name_of(action)} of {command}"
    if action.option_strings:
        default = default_of(action)
        assert row[1] == default or (default is None and row[1]), f"{command}: {row}"
    for choice in action.choices or ():
        assert f"`{choice}`" in row[-1], f"{command} {name_of(action)}: {choice} is not told"


def test_no_option_is_documented_that_there_is_not():
    known = {(name, name_of(action)) for name, action in options()}
    everywhere = {name for _, name in known}
    for section, text in sections(read(DOCS / "cli.md")).items():
        told = [name for name in rows(text) if name.startswith("--")]
        if section in commands():
            assert {(section, name) for name in told} <= known
        assert set(told) <= everywhere


@pytest.mark.parametrize(
    "error",
    [one for one in vars(errors).values() if isinstance(one, type)],
    ids=lambda one: one.__name__,
)
def test_every_error_stands_with_its_exit_code(error):
    assert issubclass(error, ItdaError)
    codes = rows(sections(read(DOCS / "cli.md"))["Exit codes"])
    assert f"`{error.__name__}`" in codes[str(error.exit_code)][-1]


def test_every_measure_of_likeness_is_named():
    section = sections(read(DOCS / "cli.md"))["measure"]
    assert [name for name in MEASURES if f"`{name}`" not in section] == []


def environment_variables() -> set[str]:
    """Those that the app or the library reads."""
    reading = re.compile(r"""environ(?:\.get\(|\.setdefault\(|\[)\s*["'](\w+)|getenv\(["'](\w+)""")
    found = (match for path in CODE for match in reading.finditer(read(path)))
    return {match[1] or match[2] for match in found}


def test_every_environment_variable_that_is_read_is_told():
    told = rows(sections(read(DOCS / "cli.md"))["Environment variables"])
    assert "ITDA_DATA" in environment_variables()
    assert environment_variables() - set(told) == set()


def test_every_environment_variable_of_this_project_that_is_told_is_read():
    files = [*CODE, *(REPOSITORY / "tests").rglob("*.py"), *(REPOSITORY / "tools").rglob("*.py")]
    read_somewhere = "\n".join(read(path) for path in files if path != Path(__file__))
    told = rows(sections(read(DOCS / "cli.md"))["Environment variables"])
    ours = [name for name in told if name.startswith("ITDA_")]
    assert [name for name in ours if name not in read_somewhere] == []


# Pages, runs, packages, names


@pytest.mark.parametrize("page", [path.stem for path in PAGES])
def test_the_guide_has_a_section_for_every_page(page):
    assert page.capitalize() in sections(read(DOCS / "guide.md"))


@pytest.mark.parametrize("file", RUN_FILES)
def test_every_file_of_a_run_directory_is_explained(file):
    assert file in rows(sections(read(DOCS / "architecture.md"))["Where things live"])


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_has_its_reason(file):
    lines = [line.split("#")[0].strip() for line in read(file).splitlines()]
    names = [re.split(r"[=<>~!\[; ]", line)[0] for line in lines if line]
    told = {name for cell in rows(read(DOCS / "dependencies.md")) for name in cell.split(", ")}
    assert names
    assert [name for name in names if name not in told] == []


def test_every_public_name_is_explained():
    told = "\n".join(rows(sections(read(DOCS / "library.md"))["Names"]))
    assert [name for name in itda_core.__all__ if not re.search(rf"\b{name}\b", told)] == []


# Numbers


def constant(file: str, ending: str) -> int:
    """The only whole number of a module whose name ends so, such as ROWS for _MAX_ROWS."""
    tree = ast.parse(read(REPOSITORY / file))
    found = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and node.targets[0].id.split("_")[-1] == ending
    ]
    assert len(found) == 1, f"{file} has {len(found)} constants *{ending}"
    return found[0]


WORDS = {"five": 5, "ten": 10, "twenty": 20}
"""Numbers that the guide writes as words."""


@pytest.mark.parametrize(
    ("sentence", "file", "ending"),
    [
        (r"\*\*The list\*\* shows (\S+) latents at a time", "latents/listing.py", "ROWS"),
        (r"drawn around on the map, up to (\d+)", "latents/search.py", "LINK"),
        (r"boxed among (\S+) tokens on each side", "latents/card.py", "TOKENS"),
        (r"\*\*Nearest atoms\*\*: (\S+) atoms", "latents/relations.py", "COUNT"),
        (r"share at least (\S+) explored tokens", "latents/relations.py", "SHARED"),
        (r"are the (\S+) that explain most of the text", "decompose/terms.py", "LIGHTS"),
        (r"the (\S+) latents that explain most", "decompose/terms.py", "LATENTS"),
        (
            r"the (\S+) that explain most of the text\. \*\*×0",
            "decompose/edits.py",
            "LATENTS",
        ),
        (r"up to (\S+) characters", "decompose/prompt.py", "CHARACTERS"),
        (r"add the first (\S+) to the list", "decompose/prompt.py", "PROMPTS"),
        (r"(\S+) rows are shown at a time", "similarity/drilldown.py", "ROWS"),
        (r"printed up to (\S+) rows", "charts/similarity.py", "PRINTED"),
    ],
    ids=lambda one: one if one.isupper() else "",
)
def test_numbers_of_the_guide_are_those_of_the_pages(sentence, file, ending):
    found = re.findall(sentence, read(DOCS / "guide.md"))
    assert found, f"docs/guide.md no longer says: {sentence}"
    told = {WORDS[one] if one in WORDS else int(one.replace(",", "")) for one in found}
    assert constant(f"pages/components/{file}", ending) in told


@pytest.mark.parametrize(
    ("control", "field"),
    [
        ("Model", "model"),
        ("Corpus", "corpus"),
        ("Tokens", "max_tokens"),
        ("Atoms", "max_atoms"),
        ("L0", "l0"),
        ("Threshold (published)", "threshold"),
        ("Tokens in a step (published)", "batch_tokens"),
        ("Seed", "seed"),
        ("Context length", "context_length"),
        ("Explored tokens", "explored_tokens"),
    ],
)
def test_defaults_of_the_train_page_in_the_guide_are_those_of_a_training(control, field):
    default = getattr(demo_config((7,)), field)
    told = rows(sections(read(DOCS / "guide.md"))["Train"])[control][-1]
    is_number = isinstance(default, int | float)
    assert told == (f"{default:,}" if is_number else f"`{default.name}`")


def test_the_guide_names_the_layers_of_the_demo():
    layers = [layer for layers in DEMO_LAYERS for layer in layers]
    told = ", ".join(map(str, layers[:-1])) + f" and {layers[-1]}"
    assert f"layers {told}" in sections(read(DOCS / "guide.md"))["First start"]
    assert f"layers {told}" in read(REPOSITORY / "README.md")


def test_numbers_of_tokens_in_the_guide_are_those_that_commands_take():
    told = sections(read(DOCS / "guide.md"))
    assert f"reads {EVALUATION_TOKENS:,} tokens" in told["Evaluate"]
    compared = commands()["measure"].get_default("max_tokens")
    assert f"Values are of {compared:,} tokens" in told["Similarity"]


def test_the_figures_of_the_readme_stand_in_the_claims():
    section = sections(read(REPOSITORY / "README.md"))["What holds and what does not"]
    figures = re.findall(r"\d+\.\d+", section)
    assert figures
    assert [one for one in figures if one not in read(DOCS / "claims.md")] == []


# Links


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    text = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", read(document), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_every_document_is_linked_from_the_readme(document):
    assert f"](docs/{document.name})" in read(REPOSITORY / "README.md")


# README.md


def test_the_readme_has_800_to_900_words():
    assert 800 <= len(read(REPOSITORY / "README.md").split()) <= 900


def fenced(language: str) -> str:
    """The first block of README.md in a language."""
    text = read(REPOSITORY / "README.md")
    return re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]


def test_the_lines_of_the_command_line_are_understood():
    lines = [line for line in fenced("").splitlines() if line.startswith("itda ")]
    assert len(lines) >= 8
    for line in lines:
        words = re.findall(r'"[^"]*"|\S+', line)[1:]
        make_parser().parse_args([word.strip('"') for word in words])


def test_the_lines_of_the_library_import_from_itda_core_only_and_run(
    tmp_path, tiny_corpus_file, capsys
):
    lines = fenced("python")
    imported = re.findall(r"^from (\S+) import|^import (\S+)", lines, re.MULTILINE)
    assert {name for pair in imported for name in pair if name} <= {"itda_core", "pathlib", "torch"}
    runs = tmp_path / "runs"
    with signal_handlers_kept():
        main(
            ["train", "--model", "tiny-6x128-0", "--layers", "1,3", "--max-tokens", "600",
             "--max-atoms", "64", "--l0", "8", "--dtype", "float32", "--runs", str(runs),
             "--corpus", str(tiny_corpus_file), "--no-scores"]
        )  # fmt: skip
    shallow, deep = sorted(runs.glob("*-L*"))
    lines = re.sub(r"data/runs/\S+?-L07", str(shallow), lines)
    lines = re.sub(r"data/runs/\S+?-L15", str(deep), lines)
    assert "data/runs" not in lines
    script = tmp_path / "lines.py"
    script.write_text(lines, encoding="utf-8")
    capsys.readouterr()
    runpy.run_path(str(script))
    assert "source_token" in capsys.readouterr().out


# The glossary


def test_the_glossary_of_the_document_is_the_one_in_the_code():
    document = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert with_glossary(document) == document


@pytest.mark.parametrize("term", GLOSSARY)
def test_no_page_defines_a_word_anew(term):
    """Help texts take their sentences from the glossary; what is typed twice drifts apart."""
    meaning = " ".join(GLOSSARY[term].split())
    for path in (REPOSITORY / "pages").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert meaning not in " ".join(node.value.split()), path


def test_the_columns_of_an_evaluation_are_explained_in_the_words_of_the_glossary():
    for name, column in COLUMNS.items():
        if name not in ("tokens", "corpus"):
            assert any(meaning in column.help for meaning in GLOSSARY.values()), name
