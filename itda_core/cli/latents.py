"""The command that compares the latents of two runs one by one; see parser.py for its options."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from itda_core.cli.console import corpus_spec, follow, refuse_without_corpus, show
from itda_core.runs.run import Run, find_run


def compare_latents(options: argparse.Namespace) -> int:
    """What the latents of two runs with the same sources have in common; with --save it is kept."""
    from itda_core.runs.latent_comparisons import latent_comparisons_folder
    from itda_core.similarity.same_latents import compare_latents as comparing

    refuse_without_corpus(options)
    runs = [find_run(name, options.runs) for name in options.run]
    corpus = None if options.corpus is None else corpus_spec(options)
    where = {"device": options.device, "memory": options.memory}
    steps = comparing(*runs, max_tokens=options.max_tokens, corpus=corpus, **where)
    [result] = follow(steps, options).results
    told = _keep(latent_comparisons_folder(options.runs), result) if options.save else ""
    if options.json:
        show(options, result, "latents")
    else:
        for number, rows in enumerate(_tables_of_latents(result, runs[0])):
            if number:
                print()
            show(options, {}, rows)
    if told:
        print(told, file=sys.stderr if options.json else sys.stdout)
    return 0


def _keep(folder: Path, result: dict[str, Any]) -> str:
    """Keep the result beside the runs; what it takes the place of, in a sentence."""
    from itda_core.runs.latent_comparisons import kept_comparison, save_latent_comparison

    earlier = kept_comparison(folder, result["run_a"], result["run_b"])
    save_latent_comparison(folder, result)
    if earlier is None:
        return "Kept beside the runs."
    which = "held-out prompts of " if earlier["held_out"] else ""
    return (
        f"Kept beside the runs, in place of the one of {earlier['created'][:16].replace('T', ' ')} "
        f"UTC: {earlier['run_a']} and {earlier['run_b']} on {earlier['tokens']:,} "
        f"{earlier['unit']}s of {which}{earlier['corpus']}. Of each two runs the newest is shown."
    )


def _tables_of_latents(result: dict[str, Any], run: Run) -> Iterator[list[dict[str, Any]]]:
    """The sums, what is counted, and the latents that have changed most. run: the first one."""
    from itda_core.similarity.same_latents import most_changed

    names = ("value", "low", "high", "chance")
    yield [
        {"measure": title, **{name: result[f"{key}_{name}"] for name in names}}
        for key, title in (("best", "best partners, share"), ("median", "correlation, median"))
    ]
    counts = ("namesakes", "compared", "only_a", "only_b", "unused", "alone_a", "alone_b")
    yield [{name: result[name] for name in (*counts, "tokens", "unit", "prompts")}]
    tokens = run.dictionary().sources["token"].tolist()
    yield [
        {
            "latent_a": row["latent_a"],
            "latent_b": row["latent_b"],
            "source": repr(tokens[row["latent_a"]]),
            **{name: row[name] for name in ("correlation", "rank_a", "rank_b")},
            **{f"density_{side}": row[f"uses_{side}"] / result["tokens"] for side in "ab"},
        }
        for row in most_changed(result["latents"])
    ]
