"""Genes in the order in which they enter an L1-penalised logistic regression."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.direct import DirectSelector

#: Ratio of one penalty of the path to the one before, and the last one relative to the first.
STEP, LAST = 0.95, 0.01


class L1Logistic(DirectSelector):
    """The genes that an L1-penalised logistic regression takes up first.

    The penalty falls geometrically from the largest one with a nonzero coefficient until
    ``n_markers`` genes have had one, or to a hundredth. Genes that enter at the same penalty go
    by their largest absolute coefficient. The score of a gene is the penalty at which it
    entered; of one that did not, the largest absolute gradient of the loss at the end, which
    is about the penalty at which it would.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Of the order in which the solver visits the cells.

    References
    ----------
    Friedman, Hastie and Tibshirani, "Regularization paths for generalized linear models via
    coordinate descent", Journal of Statistical Software 2010, section 4; Tibshirani et al.,
    "Strong rules for discarding predictors in lasso-type problems", JRSS B 2012.
    """

    summary: ClassVar[str] = "order of entry into an L1-penalised logistic regression"
    reference: ClassVar[str] = "Friedman et al., Journal of Statistical Software 2010"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        path = LogisticPath(np.ascontiguousarray(to_dense(X)), np.asarray(y), self.seed)
        n_genes = X.shape[1]
        entry, size = np.zeros(n_genes), np.zeros(n_genes)
        first = path.largest_penalty
        while np.count_nonzero(entry) < self.n_markers and path.penalty > LAST * first:
            path.advance(STEP * path.penalty)
            largest = np.abs(path.coef).max(axis=0)
            new = (entry == 0) & (largest > 0)
            entry[new], size[new] = path.penalty, largest[new]
        scores = np.where(entry > 0, entry, np.minimum(path.gradient, path.penalty))
        return np.lexsort((-size, -scores, entry == 0)), scores


class LogisticPath:
    """Solutions for falling penalties, each started from the one before.

    Only genes that can have a coefficient by the strong rule are handed to the solver; genes
    that it left out wrongly are found by the optimality conditions and added.

    Parameters
    ----------
    X
        z-scores, shape (n_cells, n_genes).
    y
        Class of each cell.
    seed
        Of the solver.

    Attributes
    ----------
    penalty
        Of the present solution: the mean loss a cell plus ``penalty`` times the 1-norm of the
        coefficients is least.
    coef
        Shape (n_classes, n_genes); one row for two classes.
    gradient
        Largest absolute derivative of the mean loss over the classes, shape (n_genes,).
    """

    def __init__(self, X: NDArray[np.float32], y: NDArray[np.int64], seed: int) -> None:
        self._x = X
        classes, self._y = np.unique(y, return_inverse=True)
        self._one_hot = np.eye(len(classes))[self._y]
        self._solver = LogisticRegression(
            l1_ratio=1, solver="saga", tol=1e-3, max_iter=200, warm_start=True, random_state=seed
        )
        self.coef = np.zeros((1 if len(classes) == 2 else len(classes), X.shape[1]))
        self.gradient = self._gradient(self._one_hot.mean(axis=0))
        self.largest_penalty = self.penalty = float(self.gradient.max())

    def advance(self, penalty: float) -> None:
        """Go on to a smaller penalty."""
        active = np.any(self.coef != 0, axis=0)
        candidates = active | (self.gradient >= 2 * penalty - self.penalty)
        while True:
            self._solve(np.flatnonzero(candidates), penalty)
            missed = ~candidates & (self.gradient > 1.01 * penalty)
            if not missed.any():
                break
            candidates |= missed
        self.penalty = penalty

    def _solve(self, genes: NDArray[np.int64], penalty: float) -> None:
        x = self._x[:, genes]
        self._solver.C = 1 / (len(x) * penalty)
        self._solver.coef_ = self.coef[:, genes]
        if not hasattr(self._solver, "intercept_"):
            self._solver.intercept_ = np.zeros(len(self.coef))
        with warnings.catch_warnings():
            # A path of good solutions is what is wanted, not of exact ones.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._solver.fit(x, self._y)
        self.coef = np.zeros_like(self.coef)
        self.coef[:, genes] = self._solver.coef_
        self.gradient = self._gradient(self._solver.predict_proba(x))

    def _gradient(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        residual = (self._one_hot - probability).astype(np.float32)
        return np.asarray(np.abs(residual.T @ self._x).max(axis=0) / len(self._x), np.float64)
