"""LassoNet: genes by the penalty at which a network gives them up."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.base import Selector
from mmlab.selectors.lassonet_path import VanishingTracker, first_penalty, without_copies
from mmlab.selectors.training_data import TrainingData
from mmlab.system.devices import resolve_device

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch

#: What the published training decides by itself.
_DECIDED_BY_FAITHFUL = ("path_multiplier", "path_epochs", "path_learning_rate", "dense_epochs")

#: Epochs without a loss 1 % below the best after which the training of all genes ends.
_DENSE_PATIENCE = 10


class LassoNet(Selector):
    """A network with a linear skip connection, whose genes are given up one after the other.

    The network is trained on all genes, then on a path of rising penalties of the norms of the
    skip weights of each gene; a gene whose skip weights vanish is out of the hidden layer too.
    Genes are ranked by the penalty at which they first vanish, those of one penalty by the norm
    of their skip weights just before. The path ends when at most ``n_markers`` genes have never
    vanished: they come first, by the norm of their skip weights. The score of a gene is its
    penalty; of one that never vanished, the penalty that would have come next.

    The default schedule differs from the package's: fewer and larger steps of gradient descent,
    coarser penalties, a first penalty that costs nothing to find (the package applies the
    proximal operator up to 10000 times for each one it tries), and an end at ``n_markers``.

    Parameters
    ----------
    n_markers
        Size of the panel.
    hidden_size
        Units of the hidden layer.
    M
        Hierarchy coefficient, above 0: a weight of the hidden layer is at most ``M`` times the
        norm of the skip weights of its gene.
    dense_epochs
        Most epochs on all genes; fewer where the validation loss no longer falls.
    path_multiplier
        Ratio of one penalty to the one before, above 1.
    path_epochs
        Epochs for each penalty.
    path_learning_rate
        Of gradient descent along the path, with momentum 0.9.
    faithful
        The package's own schedule, as in the published benchmark: 1000 epochs at most, then
        penalties in steps of 2 %, 100 epochs at most each, until no gene is left.
    device
        ``auto``, ``cpu`` or ``cuda``.
    seed
        Of the initial weights, the only random part.

    References
    ----------
    Lemhadri et al., "LassoNet: a neural network with feature sparsity", JMLR 2021, algorithms
    1 (training along the path) and 2 (proximal operator).
    """

    fits_on_validation: ClassVar[bool] = False
    summary: ClassVar[str] = "penalty at which a network gives a gene up (LassoNet)"
    reference: ClassVar[str] = "Lemhadri et al., JMLR 2021"

    def __init__(
        self,
        n_markers: int = 50,
        *,
        hidden_size: int = 100,
        M: float = 10.0,
        dense_epochs: int = 200,
        path_multiplier: float = 1.05,
        path_epochs: int = 20,
        path_learning_rate: float = 0.01,
        faithful: bool = False,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.n_markers = n_markers
        self.hidden_size = hidden_size
        self.M = M
        self.dense_epochs = dense_epochs
        self.path_multiplier = path_multiplier
        self.path_epochs = path_epochs
        self.path_learning_rate = path_learning_rate
        self.faithful = faithful
        self.device = device
        self.seed = seed

    def check_params(self) -> None:
        """Raise one error with every parameter that is out of its range."""
        problems = [
            f"{name} is {getattr(self, name)}, but must be at least 1"
            for name in ("hidden_size", "dense_epochs", "path_epochs")
            if getattr(self, name) < 1
        ]
        problems += [
            f"{name} is {getattr(self, name)}, but must be a finite number above {least}"
            for name, least in (("M", 0), ("path_multiplier", 1), ("path_learning_rate", 0))
            if not least < getattr(self, name) < math.inf
        ]
        if self.faithful:
            defaults = inspect.signature(type(self)).parameters
            problems += [
                f"{name} is decided by the published training: leave it out, or set faithful=false"
                for name in _DECIDED_BY_FAITHFUL
                if getattr(self, name) != defaults[name].default
            ]
        if problems:
            raise UserError("; ".join(problems) + ".")

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        import torch
        from lassonet.interfaces import NonFiniteLossError

        allowed = data.allowed
        x, y, x_val, y_val = _as_the_package_takes_them(data, allowed)
        tracker = VanishingTracker()
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would move the generators of the GPUs too.
            torch.default_generator.manual_seed(self.seed)
            model = self._package_model(validate=x_val is not None)
            try:
                model.path(
                    x,
                    y,
                    X_val=x_val,
                    y_val=y_val,
                    lambda_seq=None if self.faithful else self._penalties(model, tracker),
                    callback=tracker.watch,
                    disable_lambda_warning=True,
                )
            except NonFiniteLossError as error:
                raise UserError(
                    f"LassoNet diverged on these data with path_learning_rate "
                    f"{self.path_learning_rate}; give a smaller one."
                ) from error
        penalty = np.where(tracker.present, tracker.last * self.path_multiplier, tracker.vanished)
        scores = np.full(data.x.shape[1], penalty.min())
        scores[allowed] = penalty
        order = np.lexsort((-tracker.norm, -tracker.vanished))
        self._set_panel(allowed[order], scores, data)
        yield from ()

    def _package_model(self, *, validate: bool) -> Any:
        from functools import partial

        import torch
        from lassonet import LassoNetClassifier

        common = {
            "hidden_dims": (self.hidden_size,),
            "M": self.M,
            "device": resolve_device(self.device),
            "verbose": 0,
        }
        if not validate:
            common["val_size"] = 0
        if self.faithful:
            return LassoNetClassifier(**common)
        return without_copies(LassoNetClassifier)(
            n_iters=(self.dense_epochs, self.path_epochs),
            patience=(_DENSE_PATIENCE, None),
            optim=(
                partial(torch.optim.Adam, lr=1e-3),
                partial(torch.optim.SGD, lr=self.path_learning_rate, momentum=0.9),
            ),
            **common,
        )

    def _penalties(self, model: Any, tracker: VanishingTracker) -> Iterator[float]:
        """Rising penalties while too many genes are left; read after the dense training."""
        first = first_penalty(model.model, self.M, self.path_epochs * self.path_learning_rate)
        penalty = first
        while penalty == first or np.count_nonzero(tracker.present) > self.n_markers:
            yield penalty
            penalty *= self.path_multiplier


def _as_the_package_takes_them(
    data: TrainingData, allowed: NDArray[np.int64]
) -> tuple[Any, Any, Any, Any]:
    """Training and validation cells; classes are numbered as they occur in training.

    The network has an output for each class of the training cells: validation cells of other
    classes are left out, and of no cells there is no validation.
    """
    classes, y = np.unique(np.asarray(data.y), return_inverse=True)
    x = np.ascontiguousarray(to_dense(data.x)[:, allowed])
    if data.x_val is None:
        return x, y, None, None
    y_val = np.asarray(data.y_val)
    known = np.isin(y_val, classes)
    if not known.any():
        return x, y, None, None
    x_val = np.ascontiguousarray(to_dense(data.x_val)[:, allowed][known])
    return x, y, x_val, np.searchsorted(classes, y_val[known])
