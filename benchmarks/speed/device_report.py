"""The part of docs/performance.md on devices: side by side, and each by itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common.harness import RESULTS, as_markdown

HEADING = "## Devices"
_NOTES = Path(__file__).with_name("device_notes.md")
_INTRODUCTION = """
Each device was measured by one run of `python -m benchmarks.speed.device`, which takes at most
eight minutes. Weights are those of SmolLM2-135M where they are installed, else random ones in its
shape; the 8B shape always has random ones. What a device is given follows its kind, so that every
part ends in its time: compare ratios, and seconds only where the sizes are equal.
"""


def device_results(folder: Path = RESULTS) -> list[dict]:
    """What runs on devices have left, the CPU last; quick ones left out."""
    files = [path for path in folder.glob("device-*.json") if not path.stem.endswith("-quick")]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(files)]
    return sorted(found, key=lambda result: result["name"] == "device-cpu")


def device_section(results: Sequence[Mapping]) -> str:
    """Markdown: which devices, their targets and figures side by side, then every table."""
    parts = [HEADING, _INTRODUCTION]
    facts = {"The devices": _facts, "Targets": _targets, "Figures": _figures}
    if results:
        parts += [
            _side_by_side(title, [of(result) for result in results], results)
            for title, of in facts.items()
        ]
    else:
        parts.append("None was measured yet.\n")
    parts.append(_NOTES.read_text(encoding="utf-8"))
    parts += [_by_itself(result) for result in results]
    return "\n".join(parts).rstrip() + "\n"


def _title(result: Mapping) -> str:
    return f"{result['device']['device']}, {result['machine']['date']}"


def _side_by_side(
    title: str, columns: Sequence[Mapping[str, str]], results: Sequence[Mapping]
) -> str:
    """A row for each key of any device, a column for each device."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    heads = ["", *(_title(result) for result in results)]
    if not rows:
        return ""
    return f"{as_markdown({'table': title, 'columns': heads, 'rows': rows, 'note': ''})}\n"


def _facts(result: Mapping) -> dict[str, str]:
    machine = result["machine"]
    own = {name: value for name, value in result["device"].items() if name != "device"}
    names = ("processor", "cores", "system", "versions")
    return {**own, **{name: machine[name] for name in names if name in machine}}


def _targets(result: Mapping) -> dict[str, str]:
    blocks = [block for block in result["blocks"] if "target" in block]
    return {
        f"{block['target']}: {block['wanted']}": f"{block['measured']} "
        f"({'met' if block['met'] else '**missed**'})"
        for block in blocks
    }


def _figures(result: Mapping) -> dict[str, str]:
    blocks = [block for block in result["blocks"] if "figure" in block]
    return {block["figure"]: block["measured"] for block in blocks}


def _by_itself(result: Mapping) -> str:
    """All tables of a device, and what could not be measured."""
    lines = [f"### {_title(result)}", ""]
    for block in result["blocks"]:
        if "table" in block:
            lines += [as_markdown(block), ""]
    failed = [part for part in result["parts"] if part["outcome"] != "measured"]
    if failed:
        lines += ["Parts that did not come to their end:", ""]
        lines += [f"- {part['part']}: {part['outcome']} ({part['seconds']:g} s)" for part in failed]
        lines.append("")
    return "\n".join(lines)
