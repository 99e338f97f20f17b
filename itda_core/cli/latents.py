"""The command that compares the latents of two runs one by one; see parser.py for its options."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from itda_core.cli.console import corpus_spec, follow, refuse_without_corpus, show
from itda_core.runs.run import Run, find_run

_SUMS = """\
A namesake is the latent of the same source in the other run, and the best partner where no other
latent there correlates as well. low, high: 95 % interval. chance: where sources are permuted."""
_COUNTS = """\
a, b: the first run and the second. uses: which of them count; strong ones are told from filler by
the runs' scores. compared: namesakes that both use on these tokens; only_a, only_b, unused: that
one uses, or none. alone_a: share of a's uses that are on tokens where b does not use the namesake;
alone_b: of b's."""
_CHANGED = """\
The pairs that changed most, by where the 95 % interval of the correlation ends, of those that one
of the two uses{strongly} on {min_uses} tokens or more. rank_a: place of b's latent among all of b
by the correlation with a's, 1 the best; rank_b: of a's among all of a. uses_a: tokens that use
a's{strongly}; uses_b: that use b's; uses_both: that use both."""

_OF_PAIRS = "correlation", "rank_a", "rank_b", "uses_a", "uses_b", "uses_both"


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
        for number, (rows, about) in enumerate(_tables(result, runs[0])):
            print("\n" if number else "", end="")
            show(options, {}, rows)
            print(about)
    if told and options.json:
        print(told, file=sys.stderr)
    elif told:
        print(f"\n{told}")
    return 0


def _keep(folder: Path, result: dict[str, Any]) -> str:
    """Keep the result beside the runs; what it takes the place of, in a sentence."""
    from itda_core.runs.latent_comparisons import kept_comparison, save_latent_comparison

    kept = kept_comparison(folder, result["run_a"], result["run_b"])
    save_latent_comparison(folder, result)
    if kept is None:
        return "Kept beside the runs."
    earlier = kept.about
    which = "held-out prompts of " if earlier["held_out"] else ""
    return (
        f"Kept beside the runs, in place of the one of {earlier['created'][:16].replace('T', ' ')} "
        f"UTC: {earlier['run_a']} and {earlier['run_b']} on {earlier['tokens']:,} "
        f"{earlier['unit']}s of {which}{earlier['corpus']}. Of each two runs the newest is shown."
    )


def _tables(result: dict[str, Any], run: Run) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """The sums, what is counted, and the latents that have changed most, each with what its columns
    are. run: the first one."""
    from itda_core.runs.latent_comparisons import STRONG
    from itda_core.similarity.same_latents import MIN_STRONG_USES, MIN_USES, most_changed

    by_uses = {"all": result}
    if result["strong"] is not None:
        by_uses["strong"] = {**result, **result["strong"]}
    names = ("value", "low", "high", "chance")
    sums = [
        {"measure": title, "uses": uses, **{name: of[f"{key}_{name}"] for name in names}}
        for key, title in (("best", "best partners, share"), ("median", "correlation, median"))
        for uses, of in by_uses.items()
    ]
    yield sums, _SUMS
    counts = ("compared", "only_a", "only_b", "unused", "alone_a", "alone_b")
    counted = [
        {"namesakes": of["namesakes"], "uses": uses}
        | {name: of[name] for name in (*counts, "tokens", "unit", "prompts")}
        for uses, of in by_uses.items()
    ]
    yield counted, _COUNTS
    of_strong = "strong" in by_uses
    prefix = STRONG if of_strong else ""
    tokens = run.dictionary().sources["token"].tolist()
    changed = [
        {
            "latent_a": row["latent_a"],
            "latent_b": row["latent_b"],
            "source": repr(tokens[row["latent_a"]]),
            **{name: row[f"{prefix}{name}"] for name in _OF_PAIRS},
        }
        for row in most_changed(result["latents"], of_strong=of_strong)
    ]
    strongly, min_uses = (" strongly", MIN_STRONG_USES) if of_strong else ("", MIN_USES)
    yield changed, _CHANGED.format(strongly=strongly, min_uses=min_uses)
