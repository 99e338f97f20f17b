"""Models as the Similarity page sees them: dictionaries that differ in nothing but the layer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from itda_core.config import IMPORTED, TrainConfig, slug
from itda_core.digests import digest
from itda_core.settings import MOVED, RESID_POST
from pages.components.cached import loaded_run
from pages.components.similarity.overlaps import RunSide
from pages.components.text import last_part, visible
from pages.components.upload import short_corpus_name


@dataclass(frozen=True)
class Group:
    """One model with one setting: a dictionary for each of some layers."""

    group_id: str
    """stands in links"""
    name: str
    """short: the names that people gave its dictionaries, the model, and what tells it from the
    other groups"""
    title: str
    """all its settings"""
    config: TrainConfig
    """of its newest dictionary"""
    n_layers: int
    """blocks of the model"""
    layers: tuple[int, ...]
    directories: tuple[str, ...]
    """one for each layer"""
    run_ids: tuple[str, ...]
    """one for each layer"""
    given: tuple[str, ...]
    """the name that a person gave to each of these dictionaries in quotation marks, made to be
    shown; "" without one"""

    @property
    def long_name(self) -> str:
        """Given names, model, layers, then what tells most."""
        model, *settings = self.title.split(" · ")
        named = [_together(self.given)] * bool(_together(self.given))
        return " · ".join([*named, model, layers_text(self.layers), *settings])

    @property
    def side(self) -> RunSide:
        return tuple(zip(self.layers, self.directories, strict=True))

    @property
    def is_trained_here(self) -> bool:
        """Whether its settings can be trained again, with other layers and models too: a folder of
        activations has those that were captured, and a moved one is from one run."""
        return self.config.selection not in (IMPORTED, MOVED) and not self.config.activations


def groups_of(runs: pd.DataFrame, names: Mapping[str, str] | None = None) -> dict[str, Group]:
    """All groups by id, the oldest first. runs: rows of Store.runs.table(); names: those that
    people gave to dictionaries, by run id.

    Of several dictionaries for one layer the newest counts.
    """
    names = names or {}
    members: dict[tuple[TrainConfig, str], list] = {}
    for run in runs.sort_values("created").itertuples():
        config = loaded_run(run.directory).config.but(layers=(0,))
        members.setdefault((config, run.method), []).append(run)
    parts = [_parts(config, method) for config, method in members]
    tables = [
        pd.DataFrame(rows).drop_duplicates("layer", keep="last").sort_values("layer")
        for rows in members.values()
    ]
    given = [
        tuple(f"“{visible(names[one])}”" if one in names else "" for one in table["run_id"])
        for table in tables
    ]
    shorts = _short_names(parts, [_together(one) for one in given])
    groups = {}
    of_groups = zip(members, shorts, parts, tables, given, strict=True)
    for (config, method), name, part, table, given_names in of_groups:
        group = Group(
            group_id=_group_id(config, method),
            name=name,
            title=" · ".join(filter(None, part.values())),
            config=config,
            n_layers=int(table["n_layers"].iloc[-1]),
            layers=tuple(int(layer) for layer in table["layer"]),
            directories=tuple(table["directory"]),
            run_ids=tuple(table["run_id"]),
            given=given_names,
        )
        groups[group.group_id] = group
    return groups


def layers_text(layers: tuple[int, ...]) -> str:
    """Layers in order, those that follow each other as one: "layers 0–5, 7"."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][-1] + 1:
            spans[-1].append(layer)
        else:
            spans.append([layer])
    parts = [str(span[0]) if len(span) == 1 else f"{span[0]}–{span[-1]}" for span in spans]
    return f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(parts)}"


def _parts(config: TrainConfig, method: str) -> dict[str, str]:
    model = visible(last_part(config.model.name))
    revision = config.model.revision
    return {
        "model": f"{model} at {revision}" if revision else model,
        "site": "" if config.site == RESID_POST else config.site,
        "method": method,
        "atoms": f"{config.max_atoms:,} atoms",
        "l0": f"L0 {config.l0}",
        "tokens": f"{config.max_tokens:,} tokens",
        "folder": "from a folder of activations" if config.activations else "",
        "corpus": short_corpus_name(config.corpus.name),
        "seed": f"seed {config.seed}",
    }


def _together(given: Sequence[str]) -> str:
    """The names of several dictionaries as one, each once."""
    return ", ".join(dict.fromkeys(filter(None, given)))


def _short_names(parts: list[dict[str, str]], given: list[str]) -> list[str]:
    """What people call them, the model with its place in the block where that is not the usual one,
    what differs between groups, and a number where that is nothing."""
    shown = [
        name
        for name in (parts[0] if parts else {})
        if name == "site" or (name != "model" and len({part[name] for part in parts}) > 1)
    ]
    names = [
        " · ".join(filter(None, [called, part["model"], *(part[name] for name in shown)]))
        for part, called in zip(parts, given, strict=True)
    ]
    return [
        f"{name} ({names[:number].count(name) + 1})" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]


def _group_id(config: TrainConfig, method: str) -> str:
    fields = json.dumps([config.to_dict(), method], sort_keys=True)
    return f"{slug(config.model.name)}-{digest(fields, size=4)}"
