"""What every CUDA kernel must move and compute, and the time that takes at least on an H200.

Fills the tables of ``docs/kernels.md``.  Nothing here is measured: bytes and operations are formulas of the sizes
below, and a kernel's floor is the larger of bytes over bandwidth and operations over their peak.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bench.harness.experiment import Content, Experiment, Panel, Table
from gpu_sublinear.devices import TreeLayout
from gpu_sublinear.devices.cuda import sources as kernels
from gpu_sublinear.devices.cuda.products import FEWEST_PARTS, MOST_PARTS, PART_BYTES

BANDWIDTH = 4.3e12  # bytes/s: a copy on an H200, read plus written
PEAKS = {  # operations/s on an H200 without tensor cores; None: no peak assumed, bytes alone count
    "float32": 67e12 / 2,  # products and sums rounded apart use half of the fused peak
    "float64": 67e12 / 2,  # fused, half of float32's fused peak
    "float64 apart": 67e12 / 4,
    "integer": None,
    "atomic": None,
}
N, D, M, ARITY, MARGIN = 1024, 64, 2**20, 8, 0.1
FLIPPED = 0.01  # of the fired pairs, in change_pairs and flip_mask
EXPECTED = ("nnz", "u", "c", "v", "pairs", "s", "e", "flips", "length", "parts")  # letters that are shown
BUCKETS, SKETCH_ROWS, NONZEROS = 2 * N, 8 * N, 1


def tail(b: float) -> float:
    """Return Q(b), the probability that a standard normal exceeds b."""
    return math.erfc(b / math.sqrt(2)) / 2


def counts(b: float) -> dict[str, float]:
    """Return the letters of the formulas: expected numbers for independent points on the sphere, REAL = float32."""
    q, near = tail(b), tail(b - MARGIN)
    union, listed = (M * (1 - (1 - p) ** N) for p in (q, near))
    sizes = TreeLayout(M, ARITY).sizes
    passing = [1 - (1 - q) ** min(ARITY**level, M) for level in range(len(sizes) + 1)]  # of the nodes of a level
    frontier = [N * min(M, -(-M // ARITY**level)) * passing[level] for level in range(1, len(sizes))] + [N]
    return {
        "n": N, "d": D, "m": M, "h": sum(sizes[1:]), "u": union, "nnz": N * M * q, "v": listed, "c": N * M * near,
        "pairs": M * (N * q * (1 - q) + (N * q) ** 2), "s": ARITY * sum(frontier), "e": sum(frontier),
        "flips": FLIPPED * N * M * q, "length": 1 + (N - 1) * q, "B": BUCKETS, "S": SKETCH_ROWS, "k": NONZEROS,
        "parts": min(union, max(FEWEST_PARTS, min(MOST_PARTS, PART_BYTES // (8 * N)))),
    }  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """Formulas of one kernel, over the whole of one call of its operation."""

    file: str
    name: str
    bytes: str  # from and to memory
    operations: str
    kind: str  # of the operations, a key of PEAKS
    cached: str = "0"  # bytes from the L2 cache, beyond those from memory


KERNELS = (
    Kernel("normal_rows", "normal_rows", "4*m*d", "57*m*d", "float64 apart"),
    Kernel("normal_rows", "cap_rows", "2*nnz*d + 6*nnz", "57*nnz*d + 50*nnz", "float64 apart"),
    Kernel("update_rows", "update_rows", "12*u*d + 4*u", "u*d", "float32"),
    Kernel("fill_leaves", "fill_leaves", "4*(n*m + m*d + n*d)", "2*n*m*d", "float32"),
    Kernel("reduce_level", "reduce_level", "4*n*(m + 2*h)", "n*(m + h)", "float32"),
    Kernel("expand_frontier", "count_children", "4*s + 8*e + s/8", "s", "float32"),
    Kernel("expand_frontier", "fill_children", "16*e + s/4 + 12*nnz", "s", "float32", "4*s"),
    Kernel("forward", "forward", "8*nnz + 4*m", "3*nnz", "float64 apart", "4*nnz"),
    Kernel("rows_of_entries", "rows_of_entries", "4*nnz + 8*n", "0", "integer"),
    Kernel("count_pairs", "count_pairs", "8*nnz + 8*u + 4*n*n", "pairs", "atomic", "4*pairs"),
    Kernel("fill_jacobian", "fill_jacobian", "8*nnz*d + 4*nnz", "nnz*d", "float32", "4*nnz*d"),
    Kernel("fill_jacobian", "fill_jacobian_t", "8*nnz*d + 4*nnz + 8*u*d", "nnz*d", "float32", "4*nnz*d"),
    Kernel("sketch_rows", "sketch_rows", "8*nnz*d + 16*n*S", "k*nnz*d", "atomic", "16*k*nnz*d"),
    Kernel("scan_bits", "scan_bits", "4*(m*d + n*d) + 8*m + n*m/8", "2*n*m*d", "float32"),
    Kernel("list_bits", "count_bits", "n*m/8 + 4*m", "n*m/64", "integer"),
    Kernel("list_bits", "list_bits", "n*m/8 + 8*m + 4*c", "c", "integer"),
    Kernel("evaluate_candidates", "evaluate_candidates", "4*v*d + 8*c + 20*v", "2*c*d", "float32", "4*c*d"),
    Kernel("keep_above", "keep_above", "8*c + 24*v + 12*nnz", "c", "float32"),
    Kernel("splice", "splice", "8*c + 32*v", "0", "integer"),
    Kernel("change_pairs", "flip_costs", "8*nnz + 24*u + 16*u", "nnz*log2(length)", "integer", "4*nnz*log2(length)"),
    Kernel("change_pairs", "change_counts", "24*n*n", "2*length*flips", "atomic", "8*2*length*flips"),
    Kernel("list_products", "factored_gram", "4*nnz + 8*u + 24*n*parts", "4*nnz*d", "float64", "8*nnz*d + 32*nnz"),
    Kernel(
        "list_products",
        "factored_product",
        "4*nnz + 16*u + 8*u*d + 24*n*parts",
        "2*nnz*d",
        "float64",
        "4*nnz*d + 32*nnz",
    ),
    Kernel("list_products", "factored_transposed", "4*nnz + 16*u + 8*u*d", "2*nnz*d", "float64", "4*nnz*d"),
    Kernel("move_rows", "move_rows", "8*u*d + 4*nnz + 28*u", "2*nnz*d", "float64", "4*nnz*d"),
    Kernel("pack_mask", "pack_mask", "4*(m*d + n*d) + 4*m + n*m/8", "2*n*m*d", "float32"),
    Kernel("mask_counts", "mask_counts", "n*m/8", "n*m/64", "integer"),
    Kernel("mask_union", "mask_union", "n*m/8", "n*m/64", "integer"),
    Kernel("count_mask", "count_mask", "n*m/8 + 8*n*n", "n*n*m/128", "integer", "n*n*m/256"),
    Kernel("move_mask", "move_mask", "8*m*d + n*m/8 + 16*m", "2*n*m*d", "float64 apart"),
    Kernel("pack_mask", "near_mask", "4*(m*d + n*d) + 4*m + n*m/4", "2*n*m*d", "float32"),
    Kernel("transpose_mask", "transpose_mask", "n*m/4", "n*m/32", "integer"),
    Kernel("mask_sums", "mask_sums", "n*m/8 + 8*m*d", "nnz*d", "float64 apart", "8*nnz*d"),
    Kernel("near_pairs", "count_near", "4*c + 32*m", "c", "float64 apart"),
    Kernel("near_pairs", "list_near", "4*c + 36*m + 8*flips", "c", "float64 apart"),
    Kernel("look_pairs", "look_pairs", "13*c + 20*v + 8*v*d", "2*c*d", "float64", "4*c*d"),
    Kernel("flip_bits", "flip_bits", "52*flips + n*flips/8", "flips", "integer"),
    Kernel("count_flips", "count_flips", "16*flips + 4*n*n", "4*n*flips", "integer", "n*flips/4"),
    Kernel("sketch_neurons", "hash_neurons", "12*u", "60*u", "integer"),
    Kernel("sketch_neurons", "sketch_points", "4*nnz + 8*n*B", "nnz", "atomic", "4*nnz"),
    Kernel("probe", "probe", "0", "0", "float32"),
)


def value(formula: str, letters: dict[str, float]) -> float:
    """Evaluate a formula of this file, so that what is printed is what is computed."""
    return float(eval(formula, {"__builtins__": {}, "log2": math.log2}, letters))


def floor(kernel: Kernel, letters: dict[str, float]) -> float:
    """Return the least seconds of a kernel."""
    peak = PEAKS[kernel.kind]
    compute = value(kernel.operations, letters) / peak if peak else 0.0
    return max(value(kernel.bytes, letters) / BANDWIDTH, compute)


def measure(shifts: list, device: str) -> Content:
    """Evaluate the formulas of every kernel at every shift; the same on every device."""
    letters = [counts(b) for b in shifts]
    rows = [
        {
            "kernel": kernel.name, "bytes": kernel.bytes, "operations": kernel.operations, "kind": kernel.kind,
            "cached": kernel.cached, "at": [evaluated(kernel, some) for some in letters],
        }
        for kernel in KERNELS
    ]  # fmt: skip
    return {"shifts": shifts, "letters": letters, "rows": rows}


def evaluated(kernel: Kernel, letters: dict[str, float]) -> dict[str, float]:
    """Return what the formulas of a kernel come to."""
    found = {name: value(getattr(kernel, name), letters) for name in ("bytes", "operations", "cached")}
    return found | {"floor": floor(kernel, letters)}


def answer(content: Content) -> str:
    slowest = max(content["rows"], key=lambda row: row["at"][0]["floor"])
    return (
        f"Nothing was measured. At b = {content['shifts'][0]:g} the highest of the {len(content['rows'])} floors is "
        f"that of {slowest['kernel']}, {slowest['at'][0]['floor'] * 1e6:,.0f} µs."
    )


def tables(content: Content) -> list[Table]:
    return [_kernels(content), _letters(content)]


def _kernels(content: Content) -> Table:
    head = ["kernel", "bytes", "operations", "bytes from L2"]
    for shift in content["shifts"]:
        head += [f"b={shift:g}: MB", "Gop", "L2 MB", "floor µs"]
    body = []
    for row in content["rows"]:
        operations = "0" if row["operations"] == "0" else f"{row['operations']} {row['kind']}"
        formulas = [formula.replace("*", " ") for formula in (row["bytes"], operations, row["cached"])]
        body.append([f"`{row['kernel']}`", *formulas, *(cell for at in row["at"] for cell in _cells(at)), "not yet"])
    return Table("formulas and floors", [*head, "measured"], body, (0, 1, 2, 3, len(head)))


def _cells(at: dict[str, float]) -> list[str]:
    units = {"bytes": 1e6, "operations": 1e9, "cached": 1e6}
    amounts = [f"{at[name] / unit:,.3g}" if at[name] else "0" for name, unit in units.items()]
    return [*amounts, f"{at['floor'] * 1e6:,.0f}"]


def _letters(content: Content) -> Table:
    body = [
        [f"{shift:g}", *(f"{letters[name]:.4g}" for name in EXPECTED)]
        for shift, letters in zip(content["shifts"], content["letters"], strict=True)
    ]
    return Table("the numbers behind the letters", ["b", *EXPECTED], body, ())


def panels(content: Content) -> list[Panel]:
    curves = {
        f"b = {shift:g}": [
            (row["at"][k]["bytes"], row["at"][k]["floor"]) for row in content["rows"] if row["at"][k]["bytes"]
        ]
        for k, shift in enumerate(content["shifts"])
    }
    return [Panel("floors by bytes", "bytes", "seconds", curves)]


def missing() -> set[str]:
    """Return the kernels that have no line in the table, or a line too many."""
    pattern = re.compile(r'extern "C" __global__ void(?: __launch_bounds__\([\d, ]+\))?\s+(\w+)\(')
    there = {found for name in kernels.names() for found in pattern.findall(kernels.source(name, "float32"))}
    return there ^ {kernel.name for kernel in KERNELS}


SIZES = {"shifts": [2.58, 3.0]}
EXPERIMENT = Experiment(
    "floors", 0, "What is the least time that each CUDA kernel can take?", {"tiny": SIZES, "full": SIZES}, measure,
    answer, tables, panels,
)  # fmt: skip
