"""The tables, claims and document of what measure.py has measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.harness import Report, as_markdown
from benchmarks.interpretability.runs import ITDA
from itda_core.evaluation.detection import AGAINST
from itda_core.evaluation.detection_examples import DRAWN, MIN_USES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "interpretability.md"
COMMAND = "python -m benchmarks.interpretability.measure --only-report"
TELLS = 0.9
"""AUROC above which a title is said to tell the uses"""
_KINDS = {"all": "its uses, all of them", "leading": "its leading uses"}
"""Of which uses a claim stands, in its words"""
_IN_WORDS = dict(zip(AGAINST, ("any token", "a token of the same text"), strict=True))
_CONTROLLED = (*_KINDS, "strong")
_NAME = "interpretability"
_PROBED_WITH = 5


def report(found: Mapping[str, Any]) -> None:
    """results/interpretability.json and docs/interpretability.md."""
    made = tables(found)
    for row in claims(found):
        made.target(row["claim"], "see the claim", row["figure"], row["holds"])
    made.save()
    DOCUMENT.write_text(document(found, made.blocks), encoding="utf-8")
    print(f"written: {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")


def tables(found: Mapping[str, Any]) -> Report:
    """Printed as it grows."""
    made = Report(_NAME, "Do latents explain themselves?", _about(found))
    made.table("What is compared", compared(found), _COMPARED_NOTE)
    for against in AGAINST:
        made.table(
            f"Detection: uses against {_IN_WORDS[against]}",
            detection(found, against),
            _notes[against],
        )
    made.table("Strong uses", strong(found), _STRONG_NOTE)
    made.table("Controls of the detection", controls(found), _CONTROLS_NOTE)
    made.table("Sparse probing", probing(found), _PROBING_NOTE)
    return made


# Claims


def claims(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """claim, command, figure, holds; what each says was decided before this measurement."""
    rows = [_leading(found)]
    rows += [_against_autoencoders(found, kind, words) for kind, words in _KINDS.items()]
    rows += [_of_strong_uses(found, against) for against in AGAINST]
    rows += [_probing_claim(found, "activations"), _probing_claim(found, "latents")]
    return [{**row, "command": COMMAND} for row in rows]


def _leading(found: Mapping[str, Any]) -> dict[str, object]:
    score = _score(found, ITDA, "leading")
    return {
        "claim": f"A latent's source token tells its leading uses from other tokens: AUROC over "
        f"{TELLS:g}",
        "figure": interval(score),
        "holds": score["auroc"] > TELLS,
    }


def _against_autoencoders(found: Mapping[str, Any], kind: str, words: str) -> dict[str, object]:
    ours = _score(found, ITDA, kind)
    others = {name: _score(found, name, kind) for name in _autoencoders(found)}
    told = [f"{interval(one)} ({name})" for name, one in others.items()]
    return {
        "claim": f"A latent's source token tells {words}, at least as well as an autoencoder "
        "latent's strongest token tells the same",
        "figure": f"AUROC {interval(ours)} against {', '.join(told)}",
        "holds": all(ours["auroc"] >= one["auroc"] for one in others.values()),
    }


def _of_strong_uses(found: Mapping[str, Any], against: str) -> dict[str, object]:
    """The dictionary's by either rule, those of every autoencoder by the share."""
    ours = _one(found["methods"][ITDA]["detection"], uses="strong", against=against)
    alike = _one(found["methods"][ITDA]["by_share"]["detection"], uses="strong", against=against)
    others = {
        name: _one(found["methods"][name]["detection"], uses="strong", against=against)
        for name in _autoencoders(found)
    }
    told = [f"{interval(one)} ({name})" for name, one in others.items()]
    least = min(ours["auroc"], alike["auroc"])
    return {
        "claim": f"A latent's source token tells its strong uses from {_IN_WORDS[against]}, by the "
        "signs and by the share of squared coefficients, at least as well as an autoencoder "
        "latent's strongest token tells those that hold this share",
        "figure": f"AUROC {interval(ours)} by the signs, {interval(alike)} by the share against "
        + ", ".join(told),
        "holds": all(least >= one["auroc"] for one in others.values()),
    }


def _probing_claim(found: Mapping[str, Any], other: str) -> dict[str, object]:
    """Of 5 latents against 5 raw components, or against 5 latents of every autoencoder."""
    pairs, told = [], []
    for task in _tasks(found):
        ours = _accuracy(found, ITDA, task, "latents", _PROBED_WITH)
        rivals = [ITDA] if other == "activations" else _autoencoders(found)
        theirs = [_accuracy(found, name, task, other, _PROBED_WITH) for name in rivals]
        pairs += [ours["accuracy"] >= one["accuracy"] for one in theirs]
        shown = [interval(one, "accuracy") for one in (ours, *theirs)]
        told.append(f"{task} {shown[0]} against {', '.join(shown[1:])}")
    against = "raw components of the activation" if other == "activations" else "of an autoencoder"
    return {
        "claim": f"A probe on {_PROBED_WITH} latents is at least as accurate as one on "
        f"{_PROBED_WITH} {against}, for every label",
        "figure": "; ".join(told),
        "holds": all(pairs),
    }


# Tables


def compared(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """One row for each method."""
    return [
        {
            "method": name,
            "made by": _made_by(one["about"]["made"]),
            **{title: _four(one["about"].get(key)) for title, key in _ABOUT_COLUMNS.items()},
        }
        for name, one in found["methods"].items()
    ]


def detection(found: Mapping[str, Any], against: str) -> list[dict[str, object]]:
    """One row for each kind of use; AUROC with interval, by method."""
    kinds = [row["uses"] for row in _detections(found)[ITDA] if row["against"] == against]
    return [
        {
            "uses": kind,
            **{
                name: interval(_one(scores, uses=kind, against=against))
                for name, scores in _detections(found).items()
            },
        }
        for kind in kinds
    ]


def strong(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """One row for each method: how its strong uses were told, how many they are, and detection."""
    rows = []
    for name, one in found["methods"].items():
        told = [(name, one["strong"], one["detection"])]
        if "by_share" in one:
            by_share = one["by_share"]
            told.append((name, by_share["strong"], by_share["detection"]))
        for method, uses, scores in told:
            by = "signs" if uses["by"] == "signs" else "share of squares"
            of = {against: _one(scores, uses="strong", against=against) for against in AGAINST}
            rows.append(
                {
                    "strong uses of": method, "told by": by, "latents with some": uses["latents"],
                    "of the uses": _three(uses["uses"]),
                    "of the squares": _three(uses["squares"]),
                    **{f"AUROC, {against}": interval(score) for against, score in of.items()},
                }
            )  # fmt: skip
    return rows


def controls(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """Of the uses in claims: with the titles of other latents, and by one threshold for all."""
    rows = []
    for name, scores in _detections(found).items():
        for score in scores:
            if score["uses"] in _CONTROLLED:
                rows.append(
                    {
                        "titles of": name, "uses": score["uses"], "against": score["against"],
                        "latents": score["latents"], "AUROC": _three(score["auroc"]),
                        "shuffled titles": _three(score["shuffled"]),
                        "accuracy": _three(score["accuracy"]),
                    }
                )  # fmt: skip
    return rows


def probing(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """One row for each label and k; the accuracy with its interval, by method."""
    rows = []
    for row in found["methods"][ITDA]["probing"]["results"]:
        if row["features"] == "latents":
            place = {"task": row["task"], "k": row["k"]}
            probes = {
                name: _one(one["probing"]["results"], features="latents", **place)
                for name, one in found["methods"].items()
            }
            results = found["methods"][ITDA]["probing"]["results"]
            probes["raw activations"] = _one(results, features="activations", **place)
            told = {name: interval(one, "accuracy") for name, one in probes.items()}
            label = f"{row['task']}: {row['positive']} or {row['negative']}"
            rows.append({"label": label, "k": row["k"], "prompts": row["n_test"], **told})
    return rows


def interval(score: Mapping[str, Any], measure: str = "auroc") -> str:
    """As in "0.612 (0.590–0.634)"; a dash where nothing could be measured."""
    if score[measure] is None:
        return "–"
    return f"{score[measure]:.3f} ({score['low']:.3f}–{score['high']:.3f})"


def document(found: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> str:
    """docs/interpretability.md: about, claims, tables, machine."""
    lines = ["# Do latents explain themselves?", "", _about(found), "", "## Claims", ""]
    lines += [_STATED, ""]
    lines += ["| claim | measured | |", "|---|---|---|"]
    for block in blocks:
        if "target" in block:
            holds = "holds" if block["met"] else "**does not hold**"
            lines.append(f"| {block['target']} | {block['measured']} | {holds} |")
    lines += ["", "## Tables", ""]
    for block in blocks:
        lines += [as_markdown(block), ""] if "table" in block else []
    lines += ["## What can't be concluded", "", _LIMITS, "", "## Machine", ""]
    lines += [f"- {name}: {value}" for name, value in found["machine"].items()]
    return "\n".join([*lines, ""])


# Reading what was found


def _detections(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Scores by what gives the titles, the dictionary's latents by strongest token after itself."""
    by_name = {}
    for name, one in found["methods"].items():
        by_name[name] = one["detection"]
        if "by_strongest" in one:
            by_name[f"{name} by strongest token"] = one["by_strongest"]
    return by_name


def _autoencoders(found: Mapping[str, Any]) -> list[str]:
    return [name for name in found["methods"] if name != ITDA]


def _score(found: Mapping[str, Any], method: str, kind: str) -> dict[str, Any]:
    """Detection against any tokens."""
    return _one(found["methods"][method]["detection"], uses=kind, against=AGAINST[0])


def _tasks(found: Mapping[str, Any]) -> list[str]:
    results = found["methods"][ITDA]["probing"]["results"]
    return list(dict.fromkeys(row["task"] for row in results))


def _accuracy(
    found: Mapping[str, Any], method: str, task: str, features: str, k: int
) -> dict[str, Any]:
    results = found["methods"][method]["probing"]["results"]
    return _one(results, task=task, features=features, k=k)


def _one(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The only row that has these values."""
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def _made_by(made: str | Mapping[str, Any]) -> str:
    if isinstance(made, str):
        return made
    return f"learning rate {made['lr']:g}, {made['epochs']:g} passes"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _four(value: float | None) -> str:
    is_whole = value is None or isinstance(value, int)
    return ("–" if value is None else f"{value:,}") if is_whole else f"{value:.4f}"


def _about(found: Mapping[str, Any]) -> str:
    sizes = found["sizes"]
    probed = found["methods"][ITDA]["probing"]["tokens"]
    return f"""Written by `{COMMAND}` from benchmarks/curves/{_NAME}.json, which
`python -m benchmarks.interpretability.measure` measures; do not edit.

A dictionary and autoencoders of {sizes["atoms"]:,} latents and L0 32 at layer {found["layer"]} of
{found["model"]}, all made from the same {sizes["tokens"]:,} tokens of the corpus {found["corpus"]}
and explored on the first {sizes["explored"]:,} of them. The autoencoders have the learning rate and
the passes that [the comparison](comparison.md) found best for this layer.

**Detection.** A latent of the dictionary is titled by its source, a latent of an autoencoder by the
explored token where it is strongest. Of {sizes["latents"]} latents each, drawn from those that at
least {MIN_USES} tokens use outside the title's prompt, {DRAWN} uses of every kind are drawn,
outside that prompt, and as many tokens that do not use the latent: *any token*, or for each use a
token of the *same text* that is none. AUROC is the chance that a use is nearer to the title than
such a token, by the cosine of their embeddings in {found["embedder"]}, another model, each in its
own context; 0.5 is chance. Intervals are 95 %, by resampling latents.

**Sparse probing.** On {probed:,} tokens of prompts that nothing was made from: a logistic
regression on the k latents (means over a prompt's tokens) that differ most between the answers on
the training part, and the same on the components of the activation itself. Accuracy is the mean of
that on both answers, 0.5 is chance; speeches are never split between training and test, and
intervals are 95 %, by resampling speeches."""


_STATED = (
    "What each says was decided before this measurement. An earlier trial of the detection had "
    "shown that the second would hardly hold; of strong uses the dictionary's own figure was "
    "known, those of the autoencoders were not."
)
_ABOUT_COLUMNS = {"latents": "atoms", "held-out FVU": "fvu", "unused": "unused_share"}
_COMPARED_NOTE = (
    "*Held-out FVU*: of the first held-out tokens, those of massive activations included. "
    "*unused*: share of the latents that no explored token uses."
)
_notes = dict.fromkeys(
    AGAINST,
    "AUROC (95 % interval). *weakest … strongest*: quarters of a latent's uses by |coefficient|; "
    "*leading*: the latent is the token's largest term; *strong*: told as the table below says. An "
    "autoencoder has no negative coefficients. *By strongest token*: the dictionary's latents, "
    "titled as an autoencoder's are.",
)
_STRONG_NOTE = (
    "The dictionary's are told by the signs of its coefficients "
    "([method.md](method.md#strong-uses)). An autoencoder has one sign, so that the same rule "
    "calls all its uses strong; instead the largest uses of each latent are taken that together "
    "hold the share of its squared coefficients (the squared norms of its terms) that the "
    "dictionary's strong uses hold of all. The second row takes the dictionary's in this way too. "
    "*of the uses* and *of the squares*: over all latents and their uses outside the title's "
    "prompt."
)
_CONTROLS_NOTE = (
    "*Shuffled titles*: each latent has the title of another, AUROC. *accuracy*: balanced, of one "
    "threshold on the cosine for all latents, chosen on half of them and tested on the other half."
)
_PROBING_NOTE = "Balanced accuracy (95 % interval). *k* all: every latent or component."
_LIMITS = f"""- One model, layer, corpus and seed. Intervals are over the latents or speeches drawn,
  not over trainings.
- The judge is one small embedding model that knows a token by its words and subject. A latent whose
  uses have something else in common (grammar, place in the sentence) can be sound and still score
  0.5; and a title in plain words for people might do better than a token does.
- Not every latent leads somewhere. Where few of an autoencoder's do, its leading uses are of other
  kinds of latents than the dictionary's; the counts stand beside the controls.
- Nearness to a title is partly the same token again: {DRAWN} uses of " treaty" are near to a source
  " treaty". What remains against tokens of the same text is what the context adds.
- The autoencoders saw as few tokens as the dictionary. Published ones, trained on thousands of
  times as many, may do better at both; nothing is said about them.
- Both were explored on tokens that they were made from, so that nothing is said about other texts.
- The labels are properties of whole speeches, and go together with their time and subject: a probe
  that tells them need not have found what they name. A claim about
  probes goes by the accuracies alone; where their intervals overlap, another draw of speeches may
  turn it around."""
