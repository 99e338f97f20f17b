"""The rules of the house: who imports whom, and what may stand where."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import itda_core
from tests.support.shown_text import Pages

REPOSITORY = Path(__file__).resolve().parent.parent
CORE = REPOSITORY / "itda_core"

FLOORS = [
    "glossary", "signs", "errors", "events", "clock", "devices", "digests", "settings",
    "memory", "hook_point", "data_folder", "config", "leftovers", "write_lock", "files", "tables",
    "sealed", "progress", "corpus", "model", "activations", "pursuit",
    "dictionary", "runs", "selection", "evaluation", "analysis", "similarity", "training",
    "cluster", "store", "jobs", "exchange", "checkup", "cli",
]  # fmt: skip
"""Of itda_core: modules and packages, each importing only those before it."""

SQL = re.compile(
    r"\b(SELECT|UPDATE)\s+[\w\"*(]|(?i:\b(insert\s+(or\s+\w+\s+)?into\s+\w"
    r"|create\s+(or\s+replace\s+)?(table|view|index|sequence)\b|delete\s+from\s+\w))"
)
HTML = re.compile(
    r"</?(div|span|p|br|hr|b|i|em|strong|mark|small|pre|code|style|script|table|tr|td|th|ul|ol|li|a"
    r"|img|svg|html|head|body|button|details|summary|h[1-6])(\s|/?>|$)",
    re.IGNORECASE,
)
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "os.system", "os.popen", "read_pickle", "to_pickle", "eval", "exec"}
UNSAFE_OPTIONS = {"shell", "trust_remote_code", "allow_pickle", "unsafe_allow_html"}


def core_files():
    return sorted(CORE.rglob("*.py"))


def product_files():
    return [*core_files(), *REPOSITORY.glob("*.py"), *sorted((REPOSITORY / "pages").rglob("*.py"))]


def in_components(path):
    return path.is_relative_to(REPOSITORY / "pages" / "components")


@functools.cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def nodes(tree):
    return list(ast.walk(tree))


def called_by(call):
    """The name of what is called, with its dots."""
    parts, node = [], call.func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else ast.unparse(node))
    return ".".join(parts[::-1])


def imports(tree):
    """Dotted names of everything imported, also inside functions."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_of(path):
    """The floor that a file of itda_core lies on; None for the package's own two files."""
    first = path.relative_to(CORE).parts[0].removesuffix(".py")
    return None if first in ("__init__", "__main__") else first


def strings(tree):
    """String literals, docstrings left out."""
    docstrings = {
        id(node.body[0].value)
        for node in nodes(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes(tree):
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_string and id(node) not in docstrings:
            yield node.value


def unsafe_uses(tree):
    """Ways to run what comes as data: unpickling, eval, shells, code from the hub, raw HTML."""
    for name in imports(tree):
        if name.split(".")[0] in UNSAFE_MODULES or name == "torch.load":
            yield f"import {name}"
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            called = called_by(node)
            if called == "torch.load" and _loads_weights_only(node):
                continue
            if called in UNSAFE_CALLS or called.endswith((".read_pickle", ".to_pickle")):
                yield f"{called}()"
            for keyword in node.keywords:
                if keyword.arg in UNSAFE_OPTIONS and not _is_false(keyword.value):
                    yield f"{keyword.arg}={ast.unparse(keyword.value)}"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                name = key.value if isinstance(key, ast.Constant) else None
                if name in UNSAFE_OPTIONS and not _is_false(value):
                    yield f"{name}: {ast.unparse(value)}"


def _loads_weights_only(call):
    """Whether it says weights_only=True itself, and nothing else can: no **options, no second way
    to unpickle."""
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    value = options.get("weights_only")
    is_true = isinstance(value, ast.Constant) and value.value is True
    return is_true and not options.keys() & {None, "pickle_module"} and len(call.args) <= 1


def _is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


def name_of(path):
    return str(path.relative_to(REPOSITORY))


def test_every_module_lies_on_a_floor():
    unknown = {floor_of(path) for path in core_files()} - {*FLOORS, None}
    assert not unknown, f"FLOORS in {Path(__file__).name} does not name {sorted(unknown)}"


@pytest.mark.parametrize("path", core_files(), ids=name_of)
def test_imports_go_down_only(path):
    floor = floor_of(path)
    allowed = FLOORS if floor is None else FLOORS[: FLOORS.index(floor) + 1]
    for name in imports(parse(path)):
        parts = name.split(".")
        if parts[0] == "itda_core":
            assert parts[1] in allowed, f"{name_of(path)} imports {name}, which is above it"


def test_no_private_name_crosses_a_module():
    for path in product_files():
        for name in imports(parse(path)):
            private = [part for part in name.split(".") if re.match("_(?!_)", part)]
            inside = name.split(".")[0] in ("itda_core", "pages")
            assert not (inside and private), f"{name_of(path)} imports {name}"


def test_no_package_bears_the_name_of_a_public_function():
    assert not {path.name for path in CORE.iterdir() if path.is_dir()} & set(itda_core.__all__)


def test_packages_load_nothing_by_themselves():
    """Their __init__ says what is in them, so that `itda --help` imports no more than it needs."""
    for path in CORE.glob("*/__init__.py"):
        tree = parse(path)
        assert ast.get_docstring(tree)
        at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not at_import, name_of(path)


@pytest.mark.parametrize("path", core_files(), ids=name_of)
def test_the_core_knows_nothing_of_streamlit_or_the_pages(path):
    roots = {name.split(".")[0] for name in imports(parse(path))}
    assert not roots & {"streamlit", "pages", "app"}


@pytest.mark.parametrize(
    ("page", "slow"),
    [
        ("overview", {"torch", "scipy", "sklearn", "transformers", "numba", "ray"}),
        ("latents", {"sklearn", "transformers", "ray"}),
    ],
)
def test_a_page_is_drawn_without_what_takes_seconds_to_import_and_is_not_on_it(page, slow):
    tree = parse(REPOSITORY / "pages" / f"{page}.py")
    names = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    code = f"import sys, {', '.join(['app', *names])}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not slow & set(done.stdout.split())


def test_only_the_package_itself_imports_by_computed_name():
    for path in core_files():
        names = set(imports(parse(path)))
        if path != CORE / "__init__.py":
            assert not names & {"importlib", "importlib.import_module"}, path.name


def test_only_the_store_holds_sql_and_opens_the_database():
    for path in product_files():
        if path.is_relative_to(CORE / "store"):
            continue
        tree = parse(path)
        assert "duckdb" not in {name.split(".")[0] for name in imports(tree)}, path.name
        found = [text for text in strings(tree) if SQL.search(text)]
        assert not found, f"{path.name} holds SQL: {found}"


PARQUET = {"read_table", "read_parquet", "ParquetDataset", "dataset"}
"""What reads rows of a Parquet file, of which `tables` is the only one that asks"""


def test_nothing_is_asked_of_a_parquet_file_on_which_arrow_ends_or_waits():
    """Of a damaged footer, the description of a column ends the process and a filter never ends:
    rows are chosen once they are read, and the size of a column is what its first rows say."""
    for path in core_files():
        for node in nodes(parse(path)):
            if not isinstance(node, ast.Call):
                continue
            library, _, name = called_by(node).rpartition(".")
            is_arrow = library in ("pq", "pd", "pa", "pyarrow")
            assert not (is_arrow and name in PARQUET and path.name != "tables.py"), path.name
            assert "filters" not in {keyword.arg for keyword in node.keywords}, path.name
            assert name != "row_group" or path == CORE / "files" / "foreign.py", path.name


FLOAT_MAKERS = {
    "empty", "zeros", "ones", "full", "eye", "rand", "randn", "linspace", "logspace", "tensor",
}  # fmt: skip


def tensors_of_unsaid_type(tree):
    """Calls that make a tensor in torch's default type. That is the whole process's, and
    transformers changes it while it loads a model in another thread."""
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            library, _, name = called_by(node).rpartition(".")
            says = {keyword.arg for keyword in node.keywords}
            if library == "torch" and name in FLOAT_MAKERS and "dtype" not in says:
                yield ast.unparse(node)


@pytest.mark.parametrize("path", core_files(), ids=name_of)
def test_every_tensor_that_is_made_says_its_type(path):
    assert not list(tensors_of_unsaid_type(parse(path)))


def test_the_check_for_tensors_of_unsaid_type_finds_them():
    found = tensors_of_unsaid_type(ast.parse("torch.zeros(3)\ntorch.zeros(3, dtype=torch.int64)"))
    assert list(found) == ["torch.zeros(3)"]


@pytest.mark.parametrize("path", product_files(), ids=name_of)
def test_every_text_file_is_read_and_written_in_an_encoding_that_is_said(path):
    """Else it is the machine's, which on Windows or in a country's own locale is not UTF-8."""
    least = {"read_text": 1, "write_text": 2}
    calls = [one for one in ast.walk(parse(path)) if isinstance(one, ast.Call)]
    for call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        is_said = len(call.args) >= least.get(name, 0)
        assert is_said or "encoding" in {one.arg for one in call.keywords}, call.lineno


TABLE_READERS = {"read_table", "read_parquet", "dataset", "to_pandas"}


@pytest.mark.parametrize("path", core_files(), ids=name_of)
def test_tables_are_read_in_one_place(path):
    """By `itda_core.tables`, whose reader ends also where there is no memory."""
    calls = [one for one in nodes(parse(path)) if isinstance(one, ast.Call)]
    names = {called_by(one) for one in calls if "." in called_by(one)}
    found = {name for name in names if name.rpartition(".")[2] in TABLE_READERS}
    assert path.name == "tables.py" or not found


def test_only_components_hold_html():
    for path in product_files():
        if not in_components(path):
            found = [text for text in strings(parse(path)) if HTML.search(text)]
            assert not found, f"{path.name} holds HTML: {found}"


def test_nothing_runs_code_that_comes_as_data_or_shows_html_unescaped():
    for path in product_files():
        found = list(unsafe_uses(parse(path)))
        assert not found, f"{path.name} uses {found}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "torch.load(path, weights_only=1)",
        "torch.load(path, weights_only=True, **options)",
        "torch.load(path, None, pickle_module, weights_only=True)",
        "torch.load(path, pickle_module=other, weights_only=True)",
        "from torch import load as safe\nsafe(path)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
        "st.markdown(text, unsafe_allow_html=True)",
        "pd.read_pickle(path)",
    ],
)
def test_the_check_for_unsafe_code_finds_it(code):
    assert list(unsafe_uses(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "f(trust_remote_code=False)",
        "json.load(x)",
        "torch.load(path, map_location='cpu', weights_only=True)",
    ],
)
def test_the_check_for_unsafe_code_lets_safe_code_pass(code):
    assert not list(unsafe_uses(ast.parse(code)))


@pytest.mark.parametrize(
    "text",
    ["SELECT * FROM runs", "insert into runs values (?)", "CREATE TABLE a (b)", "DELETE FROM runs"],
)
def test_the_check_for_sql_finds_it(text):
    assert SQL.search(text)


@pytest.mark.parametrize("text", ["Select a model from the list", "create a table of sources"])
def test_the_check_for_sql_lets_prose_pass(text):
    assert not SQL.search(text)


@pytest.mark.parametrize("text", ["<div class='a'>", "<span ", "</span>", "a<br>b", "<style>"])
def test_the_check_for_html_finds_it(text):
    assert HTML.search(text)


@pytest.mark.parametrize("text", ["a < b and b > c", "<|endoftext|>", "run <run_id>", "x<0.1"])
def test_the_check_for_html_lets_prose_pass(text):
    assert not HTML.search(text)


NO_TEXT_OF_OTHERS = {
    "pd.concat([latents.head(_MAX_LATENTS), others[is_changed]])": "rows; a column is named alone",
    "pd.concat([terms, latents[is_elsewhere]], ignore_index=True)": "the same",
    "result.terms(row).drop_duplicates('latent')": "the same",
    "table.drop(columns=['text', 'lists'])": "the same",
    "table.drop(columns='text').assign(run=self.run_id)": "the method of another class",
    "st.session_state": "a number by then, or a text field's default",
    "visible": "of st.text, which reads no Markdown",
    "text.split('\\n')": "the same",
    "with_signs(text)": "the same",
    "found.unmatched_a": "a number",
    "found.unmatched_b": "a number",
    "written.others": "numbers",
    "options": "the help that pages write",
    "item.side": "a number",
    "pair.a": "beside the letter of a side",
    "pair.b": "the same",
    "listing.order": "one of the orders of the list",
    "isolated(visible(text))": "by `literal` all the same",
    "format(value, digits)": "a number",
    "result.codes.l0": "a number",
}
"""What the search can't tell, and why it is no text of a person or a file"""


def test_what_a_person_or_a_file_supplied_is_shown_as_it_is():
    """By `literal` and its kin, in everything that Streamlit reads as Markdown."""
    pages = [*REPOSITORY.glob("*.py"), *sorted((REPOSITORY / "pages").rglob("*.py"))]
    unknown = [found for found in Pages(pages).unsafe() if found.text not in NO_TEXT_OF_OTHERS]
    assert not unknown, [f"{found.where}: {found.text} in {found.shown_by}" for found in unknown]


def test_the_search_for_shown_text_finds_what_is_not_literal(tmp_path):
    page = tmp_path / "page.py"
    page.write_text(
        "def show(run, latent: int):\n"
        "    parts = [f'{latent} of', literal(run.name)]\n"
        "    st.caption(' '.join(parts))\n"
        "    st.caption(f'{run.atoms:,} {literal(run.name)}')\n"
        "    st.button('Go', help=run.name)\n"
        "    parts.append(run.title)\n"
        "    st.markdown(told(run))\n"
        "    st.radio('One', [run.model])\n"
        "def told(run):\n"
        "    return f'on {run.corpus}'\n"
    )
    found = {(one.text, one.shown_by) for one in Pages([page]).unsafe()}
    assert found == {
        ("run.title", "caption"), ("run.name", "button"), ("run.corpus", "markdown"),
        ("run.model", "radio"),
    }  # fmt: skip
