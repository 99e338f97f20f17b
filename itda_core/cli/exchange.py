"""The commands that exchange dictionaries with other programs; see parser.py."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator

from itda_core.cli.console import follow, how_read, refuse_without_corpus, show, status, trained
from itda_core.runs.run import find_run, read_run


def export(options: argparse.Namespace) -> int:
    """A run as another program's files."""
    from itda_core.exchange.export import export as exporting

    run = find_run(options.run, options.runs)
    done = exporting(run, options.folder, options.format)
    summary = {"run_id": run.run_id, "format": options.format, "folder": str(done.folder)}
    show(options, {**summary, "files": done.files, "note": done.note}, [summary])
    status(done.note)
    return 0


def import_sae(options: argparse.Namespace) -> int:
    """A SAELens folder as a run."""
    from itda_core.exchange.import_saelens import import_sae as importing

    return _import(options, importing)


def import_published(options: argparse.Namespace) -> int:
    """A folder of the published code as a run."""
    from itda_core.exchange.import_published import import_published as importing

    return _import(options, importing)


def push(options: argparse.Namespace) -> int:
    """A run to the hub."""
    from itda_core.exchange import hub

    run = find_run(options.run, options.runs)
    address = hub.push(run, options.repository, options.public)
    summary = {"run_id": run.run_id, "repository": options.repository, "address": address}
    show(options, summary, [summary])
    return 0


def pull(options: argparse.Namespace) -> int:
    """A run from the hub."""
    from itda_core.exchange import hub

    run = hub.pull(options.repository, options.runs, options.revision)
    show(options, {"runs": [trained(run)]}, "runs")
    return 0


def _import(options: argparse.Namespace, importing: Callable[..., Iterator]) -> int:
    from itda_core.exchange.importing import ImportOptions

    refuse_without_corpus(options)
    fields = [field.name for field in dataclasses.fields(ImportOptions)]
    said = vars(options) | how_read(options)
    choices = ImportOptions(**{name: said[name] for name in fields})
    last = follow(importing(options.folder, options.runs, choices), options)
    runs = [read_run(options.runs / name) for name in last.finished]
    show(options, {"runs": [{**trained(run), "kind": run.about["kind"]} for run in runs]}, "runs")
    return 0
