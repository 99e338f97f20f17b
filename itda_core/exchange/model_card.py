"""The model card of a run: what a hub repository says of it, in Markdown."""

import os
from pathlib import PurePath
from typing import Any

from huggingface_hub import ModelCardData

from itda_core.dictionary.dictionary import Dictionary
from itda_core.model.sites import ABOUT
from itda_core.runs.run import Run

_KINDS = {
    "itda": "Its atoms are activations of real tokens, which `sources.parquet` names.",
    "sae": "It was imported from a sparse autoencoder; `sources.parquet` names the token where "
    "each latent is strongest.",
}
_LICENCE = """## Licence

No licence is set: choose one that those of the model and of the texts allow. `prompts.parquet`
holds the texts, and the atoms are computed from them with the model.
"""


def model_card(run: Run, repository: str) -> str:
    """The card with the hub's header: model, layer, corpus, method, measures, how to load it.

    Folders of this machine are not named. repository: owner/name.
    """
    dictionary = run.dictionary()
    model = public_name(run.config.model.name)
    what = ABOUT[run.site].replace("stream", "residual stream")
    about = (
        f"A dictionary of {what} of {model}, layer {run.layer}, a run of the "
        f"ITDA explorer (`{run.run_id}`). {_KINDS[dictionary.kind]}"
    )
    parts = [
        _header(run, dictionary),
        f"# {repository.rpartition('/')[2]}",
        about,
        _table("setting", _settings(run, dictionary)),
        _table("measure", _measures(run)),
        " ".join(_about_measures(run)),
        _loading(run, repository),
        _LICENCE,
    ]
    return "\n\n".join(parts)


def public_name(name: str) -> str:
    """A model's or corpus' name, of a path only its last part."""
    is_path = name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name
    is_path = is_path or os.path.exists(name)  # noqa: PTH110
    return PurePath(name.replace("\\", "/")).name if is_path else name


def _header(run: Run, dictionary: Dictionary) -> str:
    name = run.config.model.name
    is_on_the_hub = "/" in name and public_name(name) == name
    header = ModelCardData(
        base_model=name if is_on_the_hub else None,
        library_name="itda-explorer",
        license="other",
        tags=["interpretability", "sparse-dictionary", dictionary.kind],
    )
    return f"---\n{header.to_yaml()}\n---"


def _settings(run: Run, dictionary: Dictionary) -> dict[str, Any]:
    return {
        "model": public_name(run.config.model.name),
        "layer": f"{run.layer}, numbered from 0 to {run.about['n_layers'] - 1}",
        "site": run.site,
        "corpus": public_name(run.config.corpus.name),
        "selection": run.config.method if run.config.moved_from else run.config.selection,
        "codes": dictionary.coder.name,
        "atoms": f"{len(dictionary):,} of {dictionary.d_model:,} components",
        "L0": f"{dictionary.l0}",
        "read": dictionary.reading,
        **_put_in(run),
    }


def _put_in(run: Run) -> dict[str, str]:
    """The tokens that the tokenizer puts around each text, where the run says so."""
    sides = run.about.get("put_in", {})
    return {
        f"put {side} each text": f"`{' '.join(names)}`" for side, names in sides.items() if names
    }


def _measures(run: Run) -> dict[str, str]:
    """The numbers of metrics.json."""
    return {
        name: f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        for name, value in run.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _about_measures(run: Run) -> list[str]:
    said = ["`fvu` is the share of the variance left unexplained on held-out prompts."]
    if count := run.metrics.get("massive_held_out_tokens"):
        said.append(
            f"Massive activations ({count:,} of the held-out tokens, whose norm is over 10 × the "
            "median norm) can hold nearly all of that variance: `fvu_without_massive` leaves them "
            "out."
        )
    if "asked_tokens" in run.metrics:
        said.append("The texts had fewer tokens than the `asked_tokens` of the settings.")
    return said


def _table(head: str, rows: dict[str, str]) -> str:
    lines = [f"| {head} | |", "|---|---|"]
    lines += [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join(lines)


def _loading(run: Run, repository: str) -> str:
    return f"""## Load it

```
python -m itda_core pull {repository}
```

```python
from itda_core import Dictionary

dictionary = Dictionary.load("data/runs/{run.run_id}")
codes = dictionary.encode(activations)  # [n_tokens, d_model], as the model gives them
```"""
