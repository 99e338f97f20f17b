"""ITDA dictionaries against sparse autoencoders of the same size and L0, trained by sae-lens.

OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.versus_sae.report [--quick | --only-report]

Without options everything is captured, trained and measured (hours on one core; what
benchmarks/curves holds is skipped), then docs/comparison.md is written with its pictures.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from benchmarks.common import captured
from benchmarks.common.activations import use_cache
from benchmarks.common.captured import LAYERS, ROWS, one_quiet_thread
from benchmarks.common.harness import RESULTS, Report, as_markdown
from benchmarks.versus_sae import comparison, itda_grid, pace, sae_grid
from benchmarks.versus_sae import pictures as comparison_pictures
from benchmarks.versus_sae.sae_grid import CURVES, MINILM, SMOLLM2, Bench, Job
from benchmarks.versus_sae.sae_training import VARIANTS, SaeSettings
from itda_core.activations.massive import MASSIVE

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "comparison.md"
COMMAND = "python -m benchmarks.versus_sae.report --only-report"
_QUICK_TOKENS = 4_096


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options.add_argument(
        "--only-report", action="store_true", help="from the curves that are there"
    )
    chosen = options.parse_args()
    one_quiet_thread()
    use_cache()
    if chosen.quick:
        quick()
        return
    if not chosen.only_report:
        run_everything()
    report()


def run_everything() -> None:
    """Capture, train and measure whatever is not there yet."""
    for name in LAYERS:
        captured.capture(name, ROWS)
    bench = Bench()
    for job in itda_grid.jobs():
        itda_grid.run(bench, job)
    for jobs in sae_grid.phases().values():
        for job in jobs:
            bench.run(job)
    pace.main()


def quick() -> None:
    """A minute's worth of the same code: MiniLM, few tokens, nothing kept."""
    layer = LAYERS[MINILM][0]
    captured.capture(MINILM, captured.VALIDATION + _QUICK_TOKENS)
    with tempfile.TemporaryDirectory(prefix="itda-bench-") as folder:
        bench = Bench(Path(folder))
        for selection, pursuit in itda_grid.METHODS:
            job = itda_grid.ItdaJob(MINILM, layer, selection, pursuit, _QUICK_TOKENS, 0)
            itda_grid.run(bench, job)
        for variant in VARIANTS:
            bench.run(Job("curve", MINILM, layer, _QUICK_TOKENS, SaeSettings(variant, 4e-3, 2.0)))
        found = Report("itda_vs_sae", "Quick", "")
        found.table("MiniLM, few tokens", comparison.table(comparison.records(Path(folder))))


def ours() -> list[str]:
    """The kinds of dictionary that the goals are about: the default, and L0 on average."""
    return [comparison.itda_name(*method) for method in itda_grid.OURS]


def published() -> str:
    """The kind of dictionary that the paper describes."""
    return comparison.itda_name(*itda_grid.PUBLISHED)


def claims() -> list[dict[str, object]]:
    """Rows for docs/claims.md: claim, command, figure, holds."""
    made = _goals(comparison.records(CURVES))
    return [
        {"claim": goal.claim, "command": COMMAND, "figure": goal.figure, "holds": goal.holds}
        for goal in made
    ]


def _goals(every: list[comparison.Record]) -> list[comparison.Goal]:
    """The goals of each kind of dictionary that is ours, its name before the claim."""
    return [
        dataclasses.replace(goal, claim=f"{name}: {goal.claim}")
        for name in ours()
        for goal in comparison.goals(every, name, published())
    ]


def report() -> None:
    """results/itda_vs_sae.json, docs/comparison.md and its pictures, from the curves."""
    every = comparison.records(CURVES)
    made = Report("itda_vs_sae", "ITDA against sparse autoencoders", _ABOUT)
    made.table("All methods", comparison.table(every), _TABLE_NOTE)
    for name in ours():
        again = comparison.reached(every, name)
        if again:
            made.table(f"Where autoencoders reach {name}", again, _REACHED_NOTE)
    made.table("Learning rates of the autoencoders", sweeps(), _SWEEP_NOTE)
    if pace.read(CURVES):
        made.table("The forward pass that all share", _forward_rows(), _FORWARD_NOTE)
    for goal in _goals(every):
        made.target(goal.claim, "see the claim", goal.figure, goal.holds)
    made.save()
    write_document(every)


def _forward_rows() -> list[dict[str, object]]:
    return [
        {
            "model, layer": f"{row['model']}, {row['layer']}",
            "CPU seconds per 1,000 tokens": f"{1_000 * row['seconds']:.2f}",
            "dtype": row["dtype"],
        }
        for row in pace.read(CURVES)["forward"]
    ]


def sweeps() -> list[dict[str, object]]:
    """FVU on validation tokens by learning rate, and what else was tried."""
    rows = []
    for file in sorted(CURVES.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if "settings" not in found or found["settings"]["seed"]:
            continue
        used, best = found["settings"], sae_grid.best_point(found)
        what = "with massive activations" if found["with_massive"] else found["purpose"]
        rows.append(
            {
                "what": what, "model, layer": f"{found['model']}, {found['layer']}",
                "variant": used["variant"], "tokens": f"{found['distinct_tokens']:,}",
                "passes": f"{used['epochs']:g}", "learning rate": f"{used['lr']:g}",
                "validation FVU": f"{best['validation_fvu']:.4f}",
                "best after passes": f"{best['tokens'] / found['distinct_tokens']:.1f}",
                "dead": f"{best['dead']:.1%}",
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row["what"] == "curve", row["model, layer"]))


def write_document(every: list[comparison.Record]) -> None:
    """docs/comparison.md from the results that `report` has saved, with the pictures."""
    saved = json.loads((RESULTS / "itda_vs_sae.json").read_text(encoding="utf-8"))
    lines = [f"# {saved['title']}", "", saved["about"], "", "## Goals", ""]
    lines += ["| goal | measured | |", "|---|---|---|"]
    targets = [block for block in saved["blocks"] if "target" in block]
    for block in targets:
        holds = "holds" if block["met"] else "**does not hold**"
        lines.append(f"| {block['target']} | {block['measured']} | {holds} |")
    lines += ["", "## Pictures", ""]
    for title, file in comparison_pictures.draw(every, DOCUMENT.parent / "pictures"):
        lines += [f"![{title}](pictures/{file})", ""]
    lines += ["## Tables", ""]
    for block in saved["blocks"]:
        lines += [as_markdown(block), ""] if "table" in block else []
    lines += ["## Machine", "", *[f"- {k}: {v}" for k, v in saved["machine"].items()], ""]
    DOCUMENT.write_text("\n".join(lines), encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")


_ABOUT = f"""Written by `{COMMAND}` from the curves in benchmarks/curves; do not edit.

Autoencoders (TopK and BatchTopK, sae-lens) and dictionaries of {itda_grid.N_ATOMS:,} latents and L0
{itda_grid.L0}, on the same stored activations of the US annual messages: SmolLM2-135M, layers
{", ".join(map(str, LAYERS[SMOLLM2]))}, and all-MiniLM-L6-v2, layer {LAYERS[MINILM][0]} (an encoder:
no next token, so FVU only). Everything is measured on prompts that nothing was trained on:
FVU on {captured.HELD_OUT:,} tokens, CE loss score and KL on about 2,048 of them with the
reconstruction spliced in at all positions but the first.

What the autoencoders get: input scaled to the norm √d_model, decoder bias starting at the mean,
encoder starting as the decoder's transpose, Adam with linear warm-up and decay, the auxiliary loss
for dead latents, no tokens of massive activations (over {MASSIVE:g} × the median norm),
a sweep of the learning rate for each layer and variant, several passes over small budgets with
early stopping on {captured.VALIDATION:,} tokens of training prompts that come on top of their
budget, and BatchTopK's threshold set there so that its mean L0 is right. Their steps compute only
where latents are on (benchmarks/versus_sae/sparse_products.py), which gives the same autoencoder in
about half of sae-lens' own time.

The dictionaries choose from at most 65,536 of their tokens, as a training does, so that at 409,600
they differ from those of 65,536 by the sample only. *L0 on average* lets a token use up to twice
L0; the column L0 says what held-out tokens used.

Times are CPU seconds of a process with one thread: training only, from activations in memory to the
finished dictionary or the best checkpoint. Reading, measuring and the sweeps are left out, and so
is the forward pass, which all share and which stands apart. The autoencoders' curves took hours on
several days; their times are told in the pace that benchmarks/versus_sae/pace.py measured, median
of three rounds, with nothing else running, before the dictionaries were timed."""
_TABLE_NOTE = (
    "Mean ± half of the 95 % interval (Student's t) where there are several seeds: of an "
    "autoencoder its start and order of tokens, and at 1× and 10× its tokens; of a dictionary its "
    "tokens. *With massive*: FVU of all held-out tokens. *unused*: latents that none of the "
    "held-out tokens uses. *passes*: over the distinct tokens, until the best checkpoint."
)
_REACHED_NOTE = (
    "The quickest of all the autoencoder's curves, and the one with the fewest distinct tokens, "
    "at the first checkpoint that is as good. The learning rate of a curve falls at its end only, "
    "so an autoencoder trained for just that time would be somewhat quicker."
)
_SWEEP_NOTE = "Seed 0. *curve*: the trainings of the comparison themselves."
_FORWARD_NOTE = "One thread, up to and including the layer."


if __name__ == "__main__":
    main()
