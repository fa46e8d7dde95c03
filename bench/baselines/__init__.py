"""The opponents, by name.  To add one: write ``fit(problem, tolerance, budget) -> Fit`` and list it here."""

from __future__ import annotations

from bench.baselines import dense, jax_lm, kernels, levenberg, ours, torch_lm, torch_methods
from bench.baselines.common import Baseline

OURS = "fast engine"
BASELINES: dict[str, Baseline] = {
    OURS: ours.fast,
    "faithful, eager tree": ours.faithful,
    "fast engine, plain CG": ours.plain_cg,
    "dense GN": dense.all_at_once,
    "dense GN, blocks, silent dropped": dense.blocks,
    "dense GN, packed bits, silent dropped": dense.bits,
    "dense LM": levenberg.fit,
    "torch SGD, momentum": torch_methods.sgd,
    "torch Adam": torch_methods.adam,
    "torch L-BFGS": torch_methods.lbfgs,
    "torch LM, J stored": torch_lm.fit,
    "optimistix LM, CG": jax_lm.fit,
    "NTK ridge, closed form": kernels.ntk_ridge,
    "KernelRidge, Gaussian": kernels.kernel_ridge,
}
KERNELS = ("NTK ridge, closed form", "KernelRidge, Gaussian")  # they train no network
SECOND_ORDER = ("dense GN", "dense GN, blocks, silent dropped", "dense GN, packed bits, silent dropped", "dense LM")
