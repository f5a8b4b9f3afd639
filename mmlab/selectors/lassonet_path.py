"""The regularisation path of LassoNet: its first penalty, and the removal of genes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def without_copies(classifier: type) -> Any:
    """Return a subclass of the package's classifier that does not copy the cells in every step.

    The package indexes the cells in every step with the indices of all of them, which copies the
    whole matrix and takes a fifth of the time. The results are bitwise equal.
    """
    import torch

    class InPlace(torch.Tensor):
        # Operations on it return plain tensors.
        __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

        def __getitem__(self, index: Any) -> torch.Tensor:
            # As many indices as cells: these are all cells in order, as the package does not
            # shuffle.
            if isinstance(index, torch.Tensor) and len(index) == len(self):
                return self.as_subclass(torch.Tensor)
            return super().__getitem__(index)

    class WithoutCopies(classifier):  # type: ignore[misc]
        def _cast_input(self, X: Any, y: Any = None) -> Any:
            cast = super()._cast_input(X, y)
            if y is None:
                return cast
            return cast[0].as_subclass(InPlace), cast[1]

    return WithoutCopies


def first_penalty(network: Any, M: float, descent: float) -> float:
    """Return a tenth of the smallest penalty that would remove a gene without the loss.

    Parameters
    ----------
    network
        Trained ``lassonet.model.LassoNet``.
    M
        Hierarchy coefficient.
    descent
        Learning rate times the number of steps per penalty.

    Notes
    -----
    With a step of t, the proximal operator removes gene j if the penalty is at least (norm of
    its skip weights + M times the 1-norm of its hidden weights) / t. The result is the smallest
    such value over the genes, for t = ``descent``, divided by 10.
    """
    skip = network.skip.weight.detach().norm(dim=0)
    hidden = network.layers[0].weight.detach().abs().sum(dim=0)
    return float((skip + M * hidden).min()) / descent / 10


class RemovalTracker:
    """Records when each gene is first removed, and the norm of its skip weights just before.

    Attributes
    ----------
    present
        Whether a gene was never removed, shape (n_genes,).
    removed_at
        Penalty that first removed a gene, infinite if none did, shape (n_genes,).
    norm
        Norm of the skip weights of a gene, before it was removed, shape (n_genes,).
    last_penalty
        Penalty of the last call; 0 for the dense training.
    """

    def __init__(self) -> None:
        self.present: NDArray[np.bool_] = np.ones(0, dtype=bool)
        self.removed_at: NDArray[np.float64] = np.ones(0)
        self.norm: NDArray[np.float64] = np.ones(0)
        self.last_penalty = 0.0

    def record(self, model: Any, history: list[Any]) -> None:
        """Record the state; the package calls this after dense training and after every penalty."""
        norm = model.model.skip.weight.detach().norm(dim=0).cpu().numpy().astype(np.float64)
        if len(history) == 1:
            self.present = np.ones(len(norm), dtype=bool)
            self.removed_at = np.full(len(norm), np.inf)
            self.norm = norm
        self.last_penalty = float(history[-1].lambda_)
        removed = self.present & ~history[-1].selected.numpy()
        self.removed_at[removed] = self.last_penalty
        self.present &= ~removed
        # Removed genes keep the norm that they had before.
        self.norm = np.where(self.present, norm, self.norm)
