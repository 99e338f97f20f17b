"""A dictionary moved to another model against one chosen there and against random tokens.

    OMP_NUM_THREADS=2 python -m benchmarks.moving.measure                       everything
    OMP_NUM_THREADS=2 python -m benchmarks.moving.measure --part seeds          one part
    python -m benchmarks.moving.measure --only-report

The figures are kept in benchmarks/curves, a file for each part, from which docs/moving.md is
written.
"""

import argparse
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.common.harness import machine
from benchmarks.layer_matching import noise as matching_noise
from benchmarks.layer_matching.data import names
from benchmarks.moving import contest
from benchmarks.moving import report as moving_report
from benchmarks.moving.both import rows_for_both
from benchmarks.moving.reading import Amounts, Reading
from itda_core.dictionary.dictionary import Dictionary

CURVES = Path(__file__).resolve().parents[1] / "curves"
SMALL = {"6x128": (2, 4), "12x96": (4, 8)}
SMOLLM2, MINILM, TINY = "smollm2-135m", "minilm-l6", "tiny-6x128-0"
FIFTHS, OF_MINILM = tuple(range(0, 30, 5)), (1, 3, 5)
OF_SMALL = Amounts(training=320, held_out=72, spliced=2_048)
OF_LARGE = Amounts(training=160, held_out=36, spliced=1_024)
Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--only-report", action="store_true")
    options = parser.parse_args()
    for part in () if options.only_report else options.part or PARTS:
        _keep(part, PARTS[part]())
    moving_report.write(results())


def results() -> dict[str, dict]:
    """What was measured so far, by part."""
    found = {part: _file(part) for part in PARTS}
    return {
        part: json.loads(file.read_text(encoding="utf-8"))
        for part, file in found.items()
        if file.exists()
    }


def between_seeds() -> Iterator[Row]:
    """Models of one shape, from each seed to each other, the same layer."""
    for shape, layers in SMALL.items():
        readings = [Reading(name, layers, OF_SMALL) for name in names(shape)]
        owns = [_owns(reading) for reading in readings]
        for layer in layers:
            for target, of_target in zip(readings, owns, strict=True):
                origins = [of[layer] for of in owns if of is not of_target]
                yield from compared(target, [layer], of_target, origins)


def between_layers() -> Iterator[Row]:
    """SmolLM2, from every fifth layer to every fifth."""
    reading = Reading(SMOLLM2, FIFTHS, OF_LARGE)
    owns = _owns(reading)
    for layer in FIFTHS:
        others = [own for i, own in owns.items() if i != layer]
        yield from compared(reading, [layer], owns, others)


def with_noise() -> Iterator[Row]:
    """SmolLM2 to itself with noise in its weights, the same layer."""
    origins = _owns(Reading(SMOLLM2, FIFTHS, OF_LARGE))
    for share in matching_noise.SHARES:
        reading = Reading(SMOLLM2, FIFTHS, OF_LARGE, share)
        owns = _owns(reading)
        for layer in FIFTHS:
            yield from compared(reading, [layer], owns, [origins[layer]])


def across_tokenizers() -> Iterator[Row]:
    """Between models with different tokenizers, every layer to every layer."""
    for origin, target in _tokenizer_pairs():
        yield from compared(target, target.layers, _owns(target), [*_owns(origin).values()])


def why_random() -> Iterator[Row]:
    """Across tokenizers, random tokens from those alone at which a token of the other ends."""
    for origin, target in _tokenizer_pairs():
        rows = contest.rows_with_ends_of(target, origin)
        for layer, own in _owns(target).items():
            there = {
                "own": own,
                "random": contest.random(target, layer, len(own), seed=0),
                "reachable": contest.random(target, layer, len(own), seed=0, among=rows),
            }
            yield {
                "from": {"model": origin.model.name},
                "to": _place(target.model.name, layer),
                "reachable_share": len(rows) / target.plan.total_rows,
                **_figures(contest.left_by(target, layer, there)),
            }


def other_seeds() -> Iterator[Row]:
    """Dictionaries that were chosen in the model itself, by other draws."""
    large = Reading(SMOLLM2, FIFTHS, OF_LARGE)
    small = [Reading(f"tiny-{shape}-0", layers, OF_SMALL) for shape, layers in SMALL.items()]
    for reading in (*small, large):
        for layer, own in _owns(reading).items():
            there = {"own": own}
            there |= {f"seed {k}": contest.own(reading, layer, seed=k) for k in (1, 2, 3)}
            left = contest.left_by(reading, layer, there)
            yield {"to": _place(reading.model.name, layer), **_figures(left)}


@functools.cache
def _tokenizer_pairs() -> list[tuple[Reading, Reading]]:
    small = Reading(TINY, SMALL["6x128"], OF_LARGE)
    large = Reading(SMOLLM2, FIFTHS, OF_LARGE)
    encoder = Reading(MINILM, OF_MINILM, OF_LARGE)
    return [(small, large), (large, encoder), (large, small), (encoder, large)]


def for_both() -> Iterator[Row]:
    """One dictionary for two models of one shape, or for two layers of SmolLM2."""
    for shape, layers in SMALL.items():
        readings = [Reading(name, layers, OF_SMALL) for name in names(shape)]
        places = [[(reading, layer) for reading in readings] for layer in layers]
        owns = {id(reading): _owns(reading) for reading in readings}
        for some in places:
            yield from _for_both(some, owns)
    reading = Reading(SMOLLM2, FIFTHS, OF_LARGE)
    places = [(reading, layer) for layer in FIFTHS]
    yield from _for_both(places, {id(reading): _owns(reading)})


PARTS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "seeds": between_seeds,
    "layers": between_layers,
    "noise": with_noise,
    "tokenizers": across_tokenizers,
    "both": for_both,
    "reachable": why_random,
    "other seeds": other_seeds,
}


def compared(
    reading: Reading,
    layers: Sequence[int],
    owns: Mapping[int, Dictionary],
    origins: Sequence[Dictionary],
) -> Iterator[Row]:
    """One row for each of `layers` and each dictionary that is moved there. owns: by layer."""
    moves = [contest.moved(origin, reading, layers) for origin in origins]
    for layer in layers:
        dictionaries = {"own": owns[layer]}
        for number, move in enumerate(moves):
            there = move[layer]
            n_tokens = len(there.dictionary) - there.together
            dictionaries[f"moved {number}"] = there.dictionary
            drawn = contest.random(reading, layer, n_tokens, seed=number)
            dictionaries[f"random {number}"] = drawn
        left = contest.left_by(reading, layer, dictionaries)
        for number, (origin, move) in enumerate(zip(origins, moves, strict=True)):
            three = left["own"], left[f"moved {number}"], left[f"random {number}"]
            yield {
                "from": _place(origin.hook_point.model, origin.hook_point.layer),
                "to": _place(reading.model.name, layer, reading.noise),
                "held_out_tokens": len(reading.held_out[layer][0]),
                "left_out": move[layer].left_out,
                "together": move[layer].together,
                **_figures(dict(zip(("own", "moved", "random"), three, strict=True))),
            }


def _for_both(places: Sequence[tuple[Reading, int]], owns: Mapping[int, Mapping]) -> Iterator[Row]:
    """Two rows, one for each side, for each two places."""
    for pair in itertools.combinations(places, 2):
        x = [reading.x[layer] for reading, layer in pair]
        rows = rows_for_both(*x, contest.ATOMS, contest.L0, contest.SEED)
        for (origin, i), (reading, layer) in (pair, pair[::-1]):
            own, of_origin = owns[id(reading)][layer], owns[id(origin)][i]
            there = {
                "own": own,
                "moved": contest.moved(of_origin, reading, [layer])[layer].dictionary,
                "both": contest.dictionary_of(reading, layer, rows),
            }
            yield {
                "from": _place(origin.model.name, i),
                "to": _place(reading.model.name, layer),
                **_figures(contest.left_by(reading, layer, there)),
            }


@functools.cache
def _owns(reading: Reading) -> dict[int, Dictionary]:
    return {layer: contest.own(reading, layer) for layer in reading.layers}


def _file(part: str) -> Path:
    return CURVES / f"moving-{part.replace(' ', '-')}.json"


def _place(model: str, layer: int, noise: float = 0.0) -> Row:
    return {"model": model, "layer": layer, **({"noise": noise} if noise else {})}


def _figures(left: Mapping[str, contest.Left]) -> Row:
    """FVU and CE loss score of each, and the FVU over that of "own"."""
    found: Row = {}
    for name, of in left.items():
        found[name] = {"fvu": of.fvu, "ce_loss_score": of.ce_loss_score}
        if name != "own":
            value, low, high = contest.ratio(of, left["own"])
            found[name] |= {"ratio": value, "low": low, "high": high}
    return found


def _keep(part: str, rows: Iterator[Row]) -> None:
    """Write a part when all of it is measured."""
    found = []
    for row in rows:
        found.append(row)
        print(json.dumps(row), flush=True)
    amounts = {"small": vars(OF_SMALL), "SmolLM2 and across tokenizers": vars(OF_LARGE)}
    settings = {"atoms": contest.ATOMS, "l0": contest.L0, "seed": contest.SEED, "prompts": amounts}
    kept = {"settings": settings, "machine": machine(), "rows": found}
    (_file(part)).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
