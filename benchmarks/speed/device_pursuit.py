"""The pursuits and the choice of atoms on a device, against the product and the bytes they need."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch

from benchmarks.common.exact_pursuits import exact_latents
from benchmarks.common.harness import Spread
from benchmarks.common.made_models import made_activations
from benchmarks.common.on_device import in_turn_on, seconds_of
from benchmarks.common.training_stages import stopwatches
from benchmarks.speed.device_bench import Bench
from itda_core.activations.pool import sample_size
from itda_core.devices import free_memory
from itda_core.pursuit.gram import affordable_gram
from itda_core.pursuit.orthogonal import PURSUITS
from itda_core.selection.coverage import choose

TARGET_ATOMS, TARGET_RATIO = 16_384, 4.0
_PRODUCT = "one product, float32"


def bandwidth(bench: Bench) -> None:
    """A large copy on the device, bytes read and written counted."""
    source = torch.randn(bench.sizes.copied_bytes // 4, device=bench.device, dtype=torch.float32)
    target = torch.empty_like(source)
    copying = {"copy": lambda: target.copy_(source)}
    spread = in_turn_on(bench.device, copying, bench.left_of_part / 2)["copy"]
    moved = 2 * bench.sizes.copied_bytes
    bench.bandwidth = moved / spread.median
    title = f"Copying {bench.sizes.copied_bytes / 2**20:,.0f} MiB on the device"
    bench.report.row(title, {"GB/s, read and written": spread.per(moved / 1e9)})
    bench.report.figure("a copy on the device, GB/s read and written", spread.per(moved / 1e9))


def pursuits(n_atoms: int, bench: Bench) -> None:
    """Each pursuit against the one product, the bytes of its Gram rows, and float64."""
    (tokens, atoms), l0 = _tokens_and_atoms(bench, n_atoms), bench.sizes.l0
    built = []
    gram_seconds = seconds_of(lambda: built.append(affordable_gram(atoms)), bench.device)
    gram = built[0]
    products, together = _products(tokens, atoms), {}
    for name, pursue in PURSUITS.items():
        together[name] = functools.partial(pursue, tokens, atoms, l0, gram=gram)
    spreads = in_turn_on(bench.device, {**products, **together}, 0.6 * bench.left_of_part)
    ratio = spreads["orthogonal"] / spreads[_PRODUCT]
    bench.report.figure(f"OMP at {n_atoms:,} atoms, times the one product", ratio)
    if n_atoms == TARGET_ATOMS:
        what = f"OMP at {TARGET_ATOMS:,} atoms against the one product, float32"
        bench.report.target(what, f"≤ {TARGET_RATIO:g}×", ratio, ratio.median <= TARGET_RATIO)
    for name, spread in spreads.items():
        row = {
            "atoms": f"{n_atoms:,}",
            "tokens": f"{len(tokens):,}",
            "what": name,
            "tokens/s": spread.per(len(tokens)),
            "time of the product": spread / spreads[_PRODUCT],
            "time of its bytes": _against_bytes(bench, spread, tokens, atoms, gram, name),
        }
        bench.report.row(f"Pursuits, d_model {tokens.shape[1]}, L0 {l0}", row, _note())
    how = "none, memory is short" if gram is None else f"{gram.nbytes / 2**20:,.0f} MiB"
    made = {"atoms": f"{n_atoms:,}", "size": how, "seconds": gram_seconds}
    bench.report.row("Gram matrices", made)
    for name, pursue in together.items():
        _agreement(bench, name, tokens, atoms, pursue)


def _note() -> str:
    return (
        "min – **median** – max of the rounds, all in turn in each. *The product* is X·Dᵀ in "
        "float32, written into memory that is there already; *its bytes* are the rows of the Gram "
        "matrix, L0 a token, at the speed of a copy."
    )


def _tokens_and_atoms(bench: Bench, n_atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, as many as memory allows a product of, and atoms that are none of them."""
    affordable = free_memory(bench.device) // (8 * 4 * n_atoms)
    n_tokens = max(1, min(bench.sizes.pursuit_tokens, affordable))
    x = made_activations(n_atoms + n_tokens, bench.sizes.small.d_model, bench.device)
    x -= x.mean(0)
    atoms = torch.nn.functional.normalize(x[:n_atoms], dim=1)
    return x[n_atoms:].contiguous(), atoms


def _products(tokens: torch.Tensor, atoms: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The product with all atoms in each precision that there is."""
    room = tokens.new_empty(len(tokens), len(atoms))
    half, half_atoms = tokens.bfloat16(), atoms.bfloat16()
    found = {
        _PRODUCT: lambda: torch.mm(tokens, atoms.T, out=room),
        "one product, bfloat16": lambda: half @ half_atoms.T,
    }
    if tokens.device.type == "cuda":

        def in_tf32():
            with _tf32():
                torch.mm(tokens, atoms.T, out=room)

        found["one product, TF32"] = in_tf32
    return found


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _against_bytes(
    bench: Bench, spread: Spread, tokens, atoms, gram: torch.Tensor | None, name: str
) -> Spread | str:
    """A pursuit's time in units of what moving its Gram rows would take."""
    if gram is None or bench.bandwidth is None or name not in PURSUITS:
        return "–"
    moved = len(tokens) * bench.sizes.l0 * len(atoms) * gram.element_size()
    return spread.times(bench.bandwidth / moved)


def _agreement(
    bench: Bench, name: str, tokens: torch.Tensor, atoms: torch.Tensor, pursue: Callable
) -> None:
    """How many tokens get the latents of the same pursuit in float64; some of those pursued."""
    few = tokens[: bench.sizes.checked_tokens]
    found = pursue().latents[: len(few)].cpu()
    same = (found == exact_latents(few, atoms, bench.sizes.l0, name)).all(1)
    row = {
        "atoms": f"{len(atoms):,}",
        "pursuit": name,
        "tokens": f"{len(few):,}",
        "with float64's latents": f"{float(same.float().mean()):.2%}",
    }
    bench.report.row("Agreement with the same pursuit in float64", row)


def choice(n_atoms: int, bench: Bench) -> None:
    """The coverage's choice of one layer's atoms: k-means, judging, all."""
    l0 = bench.sizes.l0
    count = sample_size(n_atoms) if bench.sizes.small.d_model > 100 else 4 * n_atoms
    x = made_activations(count, bench.sizes.small.d_model, bench.device)
    choose(x[:1_000], 64, l0, seed=0)  # what is set up once, such as the eigenvalues' library
    with stopwatches(bench.synchronize) as spent:
        total = seconds_of(lambda: choose(x, n_atoms, l0, seed=0), bench.device)
    row = {
        "atoms": f"{n_atoms:,}",
        "activations": f"{count:,}",
        "k-means, s": spent["choice: k-means"],
        "judging, s": spent["choice: judging"],
        "all, s": total,
    }
    bench.report.row("Choosing the atoms of one layer", row, "One round.")
    bench.report.figure(f"choosing {n_atoms:,} atoms of one layer, s", total)
