"""Python lines that print the numbers of a page. Pure functions, but for `show_lines`."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from itda_core.analysis.what_if import Edit


def latent_lines(directory: str, latent: int) -> str:
    """What the card of a latent shows. directory: of its run."""
    return f"""\
import json
from pathlib import Path

import pandas as pd

run, latent = Path({directory!r}), {latent}
source = pd.read_parquet(run / "sources.parquet").set_index("latent").loc[latent]
print(repr(source["token"]), source["prompt_id"], source["position"])

codes = pd.read_parquet(run / "codes.parquet", filters=[("latent", "==", latent)])
uses = codes.groupby(["prompt_id", "position"])["coefficient"].sum()
explored = json.loads((run / "metrics.json").read_text("utf-8"))["explored_tokens"]
print(f"used on {{len(uses):,}} of {{explored:,}} tokens ({{len(uses) / explored:.2%}})")
print(f"strongest coefficient {{uses.abs().max():.2f}}, negative on {{(uses < 0).sum():,}}")
print(uses.sort_values(key=abs, ascending=False).head(20).to_string())
"""


def decomposition_lines(directory: str, text: str, l0: int) -> str:
    """What the Decompose page shows of a text with so many terms a token."""
    return f"""\
from pathlib import Path

from itda_core import decompose, load_model, read_run

run = read_run(Path({directory!r}))
dictionary, model = run.dictionary(), load_model(run.config.model)
text = {text!r}
result = decompose(dictionary, model, text, run.config).prefix({l0})
left = (result.residuals[:, -1] ** 2).sum() / (result.residuals[:, 0] ** 2).sum()
print(f"{{len(result.positions):,}} tokens, {{left:.1%}} left unexplained")
print(result.table()[["position", "token", "step", "latent", "coefficient"]].to_string())
"""


def side_by_side_lines(directories: tuple[str, str], text: str, l0: tuple[int, int]) -> str:
    """What the Decompose page shows of a text by two dictionaries, each with so many terms."""
    return f"""\
from pathlib import Path

from itda_core import decompose, load_model, read_run
from itda_core.analysis.side_by_side import side_by_side
from itda_core.similarity.same_latents import common_numbers
from itda_core.similarity.same_sources import namesakes
from itda_core.similarity.source_sets import same_tokenizer

text = {text!r}
runs = [read_run(Path(one)) for one in {list(directories)!r}]
a, b = (run.dictionary() for run in runs)
results = [
    decompose(dictionary, load_model(run.config.model), text, run.config).prefix(l0)
    for run, dictionary, l0 in zip(runs, (a, b), {list(l0)!r})
]
pairs = namesakes(a, b, common_numbers(*runs, {{"a": a, "b": b}}))
found = side_by_side(*results, pairs, same_tokenizer(a, b))
print(found.tokens.to_string())
print(found.terms.to_string())
"""


def prompt_table_lines(
    directory: str, prompts: Sequence[str], group_a: Sequence[int], of_strong: bool
) -> str:
    """What the Decompose page shows of its list of prompts. group_a: rows of group A; of_strong:
    whether latents are named by their strong uses."""
    thresholds = """read_scores(run).latents["threshold"].to_pandas().to_numpy("float32")"""
    groups = ""
    if group_a:
        groups = f"""
a = {list(group_a)!r}
b = [row for row in range(len(prompts)) if row not in a]
print(compare_groups(table, a, b).head(20).to_string())
"""
    return f"""\
from pathlib import Path

from itda_core import load_model, read_run
from itda_core.analysis.prompt_table import compare_groups, prompt_table
from itda_core.runs.latent_scores import read_scores

run = read_run(Path({directory!r}))
dictionary, model = run.dictionary(), load_model(run.config.model)
prompts = {list(prompts)!r}
thresholds = {thresholds if of_strong else None}
table = prompt_table(dictionary, model, prompts, run.config, thresholds)
print(table.prompts.to_string())
print(table.uses.groupby("prompt").head(3).to_string())
{groups}"""


def what_if_lines(
    directory: str, text: str, l0: int, edits: Sequence[Edit], position: int, onto: str
) -> str:
    """What “What if” shows of some edits."""
    return f"""{decomposition_lines(directory, text, l0)}
from itda_core import Edit, what_if

edits = {list(edits)!r}
found = what_if(model, dictionary, result, edits, {position}, {onto!r})
print(f"KL of the edit {{found.kl_edit[{position}]:.4f}}")
print(f"KL of the reconstruction {{found.kl_reconstruction[{position}]:.4f}}")
print(found.next_tokens.to_string())
"""


def latent_comparison_lines(
    first: str,
    second: str,
    max_tokens: int,
    corpus: Mapping[str, Any] | None = None,
    seed: int = 0,
    of_strong: bool = False,
) -> str:
    """What the Similarity page shows of the same latents in two models. first, second: directories
    of their runs, the one whose held-out prompts were read first; corpus: the fields of the
    CorpusSpec that was read instead; max_tokens, seed: as `compare_latents` was given them;
    of_strong: whether strong uses are shown."""
    options = f"max_tokens={max_tokens}, seed={seed}"
    fields = {name: value for name, value in (corpus or {}).items() if value is not None}
    if fields:
        options += f", corpus=CorpusSpec(**{fields!r})"
    spec = "from itda_core import CorpusSpec\n" if fields else ""
    sums = 'found |= found["strong"]  # the same of strong uses\n' if of_strong else ""
    return f"""\
from pathlib import Path

{spec}from itda_core import read_run
from itda_core.similarity.same_latents import compare_latents, most_changed

first, second = read_run(Path({first!r})), read_run(Path({second!r}))
*_, last = compare_latents(first, second, {options})
[found] = last.results
{sums}print(f"{{found['tokens']:,}} {{found['unit']}}s, {{found['compared']:,}} latents compared")
for name in ("best", "median"):
    print(name, *(found[f"{{name}}_{{of}}"] for of in ("value", "low", "high", "chance")))
for row in most_changed(found["latents"], of_strong={of_strong}):
    print(row)
"""


def show_lines(lines: str) -> None:
    """The lines with a button that copies them."""
    st.caption(
        "These lines print the same numbers. Run them where `itda_core` can be imported, such as "
        "the explorer's folder."
    )
    st.code(lines, language="python", height=260, wrap_lines=True)
