"""L1-penalised logistic regression: genes in the order in which they enter the model."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.ranking_selector import RankingSelector

#: Ratio of successive penalties of the path.
PENALTY_RATIO = 0.95
#: The path ends at this share of its first penalty.
MIN_PENALTY_SHARE = 0.01


class L1Logistic(RankingSelector):
    """Genes that enter an L1-penalised logistic regression first, as the penalty falls.

    The model is multinomial (binary for two classes), on z-scores. The penalty starts at the
    smallest value for which all coefficients are zero and falls by 5 % per step. The path ends
    when ``n_markers`` genes have had a nonzero coefficient, or at 1 % of the first penalty. Genes
    that enter at the same penalty are ordered by their largest absolute coefficient.

    The score of a gene is the penalty at which it entered. For a gene that did not enter, it is
    the largest absolute derivative of the loss at the end of the path, which approximates the
    penalty at which the gene would enter.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Seed of the order in which the solver visits the cells.

    References
    ----------
    Friedman, Hastie and Tibshirani, "Regularization paths for generalized linear models via
    coordinate descent", Journal of Statistical Software 2010, section 4; Tibshirani et al.,
    "Strong rules for discarding predictors in lasso-type problems", JRSS B 2012.
    """

    summary: ClassVar[str] = "order in which genes enter an L1-penalised logistic regression"
    reference: ClassVar[str] = "Friedman et al., Journal of Statistical Software 2010"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        path = LogisticPath(np.ascontiguousarray(to_dense(X)), np.asarray(y), self.seed)
        n_genes = X.shape[1]
        entry_penalty, entry_coef = np.zeros(n_genes), np.zeros(n_genes)
        last_penalty = MIN_PENALTY_SHARE * path.largest_penalty
        while np.count_nonzero(entry_penalty) < self.n_markers and path.penalty > last_penalty:
            path.advance(PENALTY_RATIO * path.penalty)
            largest = np.abs(path.coef).max(axis=0)
            new = (entry_penalty == 0) & (largest > 0)
            entry_penalty[new], entry_coef[new] = path.penalty, largest[new]
        entered = entry_penalty > 0
        scores = np.where(entered, entry_penalty, np.minimum(path.gradient, path.penalty))
        return np.lexsort((-entry_coef, -scores, ~entered)), scores


class LogisticPath:
    """Solutions of an L1-penalised logistic regression for decreasing penalties.

    Each solution starts from the previous one. The solver sees only the genes that the strong
    rule of Tibshirani et al. keeps; genes that the rule discards wrongly violate the optimality
    conditions, and are added until none is left.

    Parameters
    ----------
    X
        z-scores, shape (n_cells, n_genes).
    y
        Class index of each cell.
    seed
        Seed of the solver.

    Attributes
    ----------
    penalty
        Penalty of the current solution, which minimises the mean loss per cell plus ``penalty``
        times the 1-norm of the coefficients.
    largest_penalty
        Smallest penalty for which all coefficients are zero.
    coef
        Coefficients, shape (n_classes, n_genes); one row for two classes.
    gradient
        Absolute derivative of the mean loss with respect to the coefficients, the largest over
        the classes, shape (n_genes,).
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
        """Compute the solution for a smaller penalty."""
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
            # Approximate solutions suffice to find the order of entry.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._solver.fit(x, self._y)
        self.coef = np.zeros_like(self.coef)
        self.coef[:, genes] = self._solver.coef_
        self.gradient = self._gradient(self._solver.predict_proba(x))

    def _gradient(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        residual = (self._one_hot - probability).astype(np.float32)
        return np.asarray(np.abs(residual.T @ self._x).max(axis=0) / len(self._x), np.float64)
