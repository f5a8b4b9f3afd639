"""LassoNet: genes ranked by the penalty that removes them from a neural network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.base import Selector
from mmlab.selectors.lassonet_path import RemovalTracker, first_penalty, without_copies
from mmlab.selectors.parameter_ranges import (
    constructor_defaults,
    count_problems,
    divergence_advice,
)
from mmlab.selectors.training_data import TrainingData
from mmlab.system.devices import resolve_device

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch

#: Parameters that ``faithful=True`` fixes.
_FIXED_BY_FAITHFUL = ("path_multiplier", "path_epochs", "path_learning_rate", "dense_epochs")

#: Early stopping of the training on all genes: epochs in which the loss does not fall at least
#: 1 % below its best value.
_DENSE_PATIENCE = 10


class LassoNet(Selector):
    """Neural network with a skip connection that loses its genes as a penalty rises.

    The network has one hidden layer and a linear skip connection from the genes to the classes.
    It is trained on all genes (dense training), then with rising penalties on the norm of the
    skip weights of each gene (the path). When the skip weights of a gene become zero, its
    weights in the hidden layer do too, and the gene is removed.

    Genes are ranked by the penalty that first removes them; genes that are removed by the same
    penalty are ordered by the norm of their skip weights just before. The path ends when at most
    ``n_markers`` genes were never removed. These come first, ordered by the norm of their skip
    weights. The score of a gene is the penalty that removed it, or, if it was never removed, the
    penalty that would have followed.

    The default schedule is faster than that of the lassonet package: fewer and larger steps of
    gradient descent, larger steps of the penalty, a first penalty that is computed directly (the
    package searches it, applying the proximal operator up to 10000 times per try), and an end
    at ``n_markers`` genes.

    Parameters
    ----------
    n_markers
        Size of the panel.
    hidden_size
        Number of units in the hidden layer, at least 1.
    M
        Hierarchy coefficient, above 0: the absolute weights of a gene in the hidden layer are at
        most ``M`` times the norm of its skip weights.
    dense_epochs
        Largest number of epochs of the dense training, at least 1. It ends early when the
        validation loss no longer falls.
    path_multiplier
        Ratio of successive penalties, above 1.
    path_epochs
        Epochs per penalty, at least 1.
    path_learning_rate
        Learning rate of gradient descent with momentum 0.9 on the path, above 0.
    faithful
        Use the schedule of the lassonet package, as in the published benchmark: at most 1000
        epochs of dense training, then penalties that rise by 2 %, with at most 100 epochs each,
        until no gene is left. ``dense_epochs`` and the three ``path_`` parameters must keep
        their defaults.
    device
        Device of torch, such as ``cpu`` or ``cuda``; ``auto`` is CUDA if available, else the CPU.
    seed
        Seed of the initial weights, the only random part.

    References
    ----------
    Lemhadri et al., "LassoNet: a neural network with feature sparsity", JMLR 2021, algorithms
    1 (training along the path) and 2 (proximal operator).
    """

    fits_on_validation: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "lassonet")
    summary: ClassVar[str] = "penalty that removes a gene from a sparse neural network (LassoNet)"
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
        """Raise one ``UserError`` that lists all parameters out of range."""
        problems = count_problems(vars(self), ("hidden_size", "dense_epochs", "path_epochs"))
        problems += [
            f"{name} is {getattr(self, name)}, but must be a finite number above {least}"
            for name, least in (("M", 0), ("path_multiplier", 1), ("path_learning_rate", 0))
            if not least < getattr(self, name) < math.inf
        ]
        if self.faithful:
            defaults = constructor_defaults(self)
            problems += [
                f"{name} is fixed by faithful=true: remove {name}, or set faithful=false"
                for name in _FIXED_BY_FAITHFUL
                if getattr(self, name) != defaults[name]
            ]
        if problems:
            raise UserError(join_problems(problems))

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Choose the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        import torch
        from lassonet.interfaces import NonFiniteLossError

        from mmlab.nn.training import TrainingDivergedError

        allowed = data.allowed
        x, y, x_val, y_val = _package_input(data, allowed)
        tracker = RemovalTracker()
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the generators of the GPUs.
            torch.default_generator.manual_seed(self.seed)
            model = self._package_model(validate=x_val is not None)
            with divergence_advice(self):
                try:
                    model.path(
                        x,
                        y,
                        X_val=x_val,
                        y_val=y_val,
                        lambda_seq=None if self.faithful else self._penalties(model, tracker),
                        callback=tracker.record,
                        disable_lambda_warning=True,
                    )
                except NonFiniteLossError as error:
                    raise TrainingDivergedError("LassoNet diverged on these data") from error
        next_penalty = tracker.last_penalty * self.path_multiplier
        penalty = np.where(tracker.present, next_penalty, tracker.removed_at)
        scores = np.full(data.x.shape[1], penalty.min())
        scores[allowed] = penalty
        order = np.lexsort((-tracker.norm, -tracker.removed_at))
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

    def _penalties(self, model: Any, tracker: RemovalTracker) -> Iterator[float]:
        """Yield rising penalties until at most ``n_markers`` genes are left.

        The first one depends on the weights after the dense training, when iteration begins.
        """
        first = first_penalty(model.model, self.M, self.path_epochs * self.path_learning_rate)
        penalty = first
        while penalty == first or np.count_nonzero(tracker.present) > self.n_markers:
            yield penalty
            penalty *= self.path_multiplier


def _package_input(data: TrainingData, allowed: NDArray[np.int64]) -> tuple[Any, Any, Any, Any]:
    """Return training cells, their classes, validation cells and their classes for the package.

    The network has one output per class of the training cells, and class indices count only
    these. Validation cells of other classes are omitted; if none are left, both are None.
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
