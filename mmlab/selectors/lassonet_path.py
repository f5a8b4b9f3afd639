"""The regularisation path of LassoNet: its first penalty, and when each gene vanishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass


def without_copies(classifier: type) -> Any:
    """The package's classifier, but its steps on all cells read them where they are.

    The package takes the cells by their indices at every step, which copies the whole matrix: a
    fifth of the time. The numbers are the same to the last bit.
    """
    import torch

    class InPlace(torch.Tensor):
        # Whatever is computed from it is a plain tensor.
        __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

        def __getitem__(self, index: Any) -> torch.Tensor:
            # As many indices as cells, all distinct and ascending: the package does not shuffle.
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
    """A tenth of the penalty that would remove a gene at once, without the loss.

    Parameters
    ----------
    network
        Trained ``lassonet.model.LassoNet``.
    M
        Hierarchy coefficient.
    descent
        Learning rate times the steps of one penalty.

    Returns
    -------
    Applied with a step of t, the proximal operator removes gene j where the penalty is at least
    (norm of its skip weights + M times the 1-norm of its hidden weights) / t: the least over
    the genes, with ``descent`` for t, over 10.
    """
    skip = network.skip.weight.detach().norm(dim=0)
    hidden = network.layers[0].weight.detach().abs().sum(dim=0)
    return float((skip + M * hidden).min()) / descent / 10


class VanishingTracker:
    """Follows the path: when each gene first vanishes, and how strong it was just before."""

    def __init__(self) -> None:
        self.present: NDArray[np.bool_] = np.ones(0, dtype=bool)
        self.vanished: NDArray[np.float64] = np.ones(0)
        self.norm: NDArray[np.float64] = np.ones(0)
        self.last = 0.0

    def watch(self, model: Any, history: list[Any]) -> None:
        """Called by the package after the dense training and after every penalty."""
        norm = model.model.skip.weight.detach().norm(dim=0).cpu().numpy().astype(np.float64)
        if len(history) == 1:
            self.present = np.ones(len(norm), dtype=bool)
            self.vanished = np.full(len(norm), np.inf)
            self.norm = norm
        self.last = float(history[-1].lambda_)
        gone = self.present & ~history[-1].selected.numpy()
        self.vanished[gone] = self.last
        self.present &= ~gone
        # The norms of genes that have vanished stay as they were before.
        self.norm = np.where(self.present, norm, self.norm)
