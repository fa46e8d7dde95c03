"""The exported network as a PyTorch module; imported only where PyTorch is wanted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..model.network import NORM_TOLERANCE

if TYPE_CHECKING:
    from .parts import Parts

NEURON_BLOCK = 4096  # neurons at a time, as in ShiftedReluNetwork.predict


class ExportedNetwork(torch.nn.Module):
    """A trained network: (n, features) numbers in, (n,) or (n, c) float64 predictions out.

    Parameters
    ----------
    parts : Parts
        All numbers of the model.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        prepared = parts.preprocessing is not None
        mean = parts.preprocessing.mean if parts.preprocessing is not None else np.zeros(0)
        self.W = torch.nn.Parameter(torch.tensor(parts.W))  # (u, d)
        self.register_buffer("signs", torch.tensor(parts.signs.reshape(len(parts.W), -1)))  # (u, c)
        self.register_buffer("mean", torch.tensor(mean))  # (features,)
        self.register_buffer("divisors", torch.tensor(parts.divisors if prepared else mean))  # (features,)
        self.features: int = parts.features
        self.standard: bool = parts.standard
        self.prepared: bool = prepared
        self.norm_tolerance: float = NORM_TOLERANCE
        self.shift: float = parts.shift
        self.scale: float = parts.scale
        means, stds = np.atleast_1d(parts.targets.mean), np.atleast_1d(parts.targets.std)
        self.register_buffer("target_mean", torch.tensor(means, dtype=torch.float64))  # (c,) or (1,)
        self.register_buffer("target_std", torch.tensor(stds, dtype=torch.float64))
        self.outputs: int = parts.outputs
        self.block: int = NEURON_BLOCK
        self.slope: float = parts.activation.slope
        self.directions = [float(hinge.direction) for hinge in parts.activation.hinges]
        self.gains = [hinge.gain for hinge in parts.activation.hinges]
        self.jumps = [hinge.jump * parts.shift for hinge in parts.activation.hinges]

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return the predictions.

        Parameters
        ----------
        X : torch.Tensor
            (n, features).

        Returns
        -------
        torch.Tensor
            (n,) float64; (n, c) for c > 1 outputs.

        Raises
        ------
        ValueError
            If X has another shape.
        """
        if X.dim() != 2 or X.size(1) != self.features:
            raise ValueError(f"X must have shape (n, {self.features})")
        rows = self.unit_rows(X.to(torch.float64)).to(self.W.dtype)  # (n, d)
        total = torch.zeros(X.size(0), self.outputs, dtype=torch.float64, device=X.device)  # (n, c)
        for first in range(0, self.W.size(0), self.block):
            last = min(first + self.block, self.W.size(0))
            hidden = self.hidden(rows @ self.W[first:last].t())  # (n, block)
            total = total + (hidden @ self.signs[first:last]).to(torch.float64)
        total = total * self.scale * self.target_std + self.target_mean
        return total.squeeze(1) if self.outputs == 1 else total

    def hidden(self, z: torch.Tensor) -> torch.Tensor:
        """Return what the neurons make of their inner products, as ``Activation.varying``."""
        total = torch.zeros_like(z)
        for direction, gain, jump in zip(self.directions, self.gains, self.jumps):  # noqa: B905  (TorchScript)
            above = direction * z - self.shift
            term = torch.relu(above)
            if jump != 0.0:
                term = term + jump * (above > 0).to(z.dtype)
            total = total + gain * term
        if self.slope != 0.0:
            total = total + self.slope * z
        return total

    def unit_rows(self, X: torch.Tensor) -> torch.Tensor:
        """Return what the network sees, (n, d) float64: as ``Preprocessing.transform``, in the same order."""
        if not self.prepared:  # what ShiftedReluNetwork.predict refuses becomes NaN
            wrong = ((X * X).sum(dim=1, keepdim=True).sqrt() - 1.0).abs() > self.norm_tolerance  # (n, 1)
            return X.masked_fill(wrong, float("nan"))
        if self.standard:
            X = torch.nn.functional.pad((X - self.mean) / self.divisors, [0, 1], "constant", 1.0)
        X = X / X.abs().amax(dim=1, keepdim=True)
        return X / (X * X).sum(dim=1, keepdim=True).sqrt()


def save_script(module: ExportedNetwork, path: Path) -> None:
    """Write the module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its successor's files need this package's own class
        torch.jit.script(module).save(str(path))
