"""Paired statistical tests between methods that were evaluated on the same test cells."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mmlab.comparison.paired_tests import CONFIDENCE, corrected_table
from mmlab.trial.result import PER_CELL

#: Number of resamples of the bootstrap.
RESAMPLES = 10_000
#: Seed of the resamples: the same cells are drawn for every method.
_SEED = 0
#: Maximum number of cells that are drawn at a time, which bounds the memory.
_DRAWN_CELLS = 2**20

_BOOTSTRAP, _MCNEMAR = "bootstrap over cells", "McNemar"


def cell_tests(rows: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    """Test every method against a reference, over the test cells of the protocol ``locked``.

    Under this protocol all replicates have the same test cells; they differ in the training
    cells. A difference that is the same in every replicate can still be due to the choice of the
    test cells, so the cells are the sample, not the replicates: the values of a cell are averaged
    over the replicates, and the differences between two methods are tested over the cells
    (:func:`bootstrap_over_cells`). The accuracies of a single replicate are right or wrong for
    each cell and are compared with :func:`mcnemar`.

    Parameters
    ----------
    rows
        One row per method and replicate: columns method, replicate and ``per_cell/<metric>``, a
        list with one value per test cell.
    metric
        Metric to compare: the mean of its values over the cells.
    reference
        Method that the others are compared with.

    Returns
    -------
    One row per method other than the reference, in the order of ``rows``, with these columns.
    Without common replicates, the numbers are NaN.

    method, reference, metric
        What was compared.
    n
        Number of replicates that both methods have.
    mean_difference
        Mean over cells and common replicates, method minus reference.
    low, high
        95 % confidence interval of the difference, from the bootstrap.
    p, p_holm
        Two-sided p-value, and the same corrected for the number of methods.
    test
        Name of the test: "bootstrap over cells" or "McNemar".

    Raises
    ------
    ValueError
        A method has more than one row for a replicate, or the numbers of test cells differ.
    """
    values = rows.pivot(index="replicate", columns="method", values=PER_CELL + metric)
    records = []
    for method in dict.fromkeys(rows["method"]):
        if method == reference:
            continue
        both = values[[method, reference]].dropna()
        differences = [np.subtract(*pair) for pair in both.map(np.asarray).to_numpy()]
        compared = {"method": method, "reference": reference, "metric": metric}
        records.append(compared | _test_cells(differences, metric))
    return corrected_table(records)


def _test_cells(differences: list[NDArray[np.float64]], metric: str) -> dict[str, float | str]:
    """Return n, mean_difference, low, high, p and test of the differences of each replicate."""
    n = len(differences)
    if not n:
        missing = dict.fromkeys(("mean_difference", "low", "high", "p"), math.nan)
        return {"n": n, **missing, "test": _BOOTSTRAP}
    # Sums over replicates of differences between right and wrong are integers, which the bootstrap
    # adds exactly; means over replicates are not.
    total = np.sum(np.stack(differences), axis=0)
    p, half_width = bootstrap_over_cells(total)
    mean, half, test = float(total.mean()) / n, half_width / n, _BOOTSTRAP
    if n == 1 and metric.endswith("/accuracy"):
        p, test = mcnemar(total), _MCNEMAR
    return {
        "n": n,
        "mean_difference": mean,
        "low": mean - half,
        "high": mean + half,
        "p": p,
        "test": test,
    }


def bootstrap_over_cells(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Test whether the mean difference over cells is 0, with a bootstrap over the cells.

    The test asks how often the mean of a resample deviates from the observed mean at least as
    much as the observed mean deviates from 0.

    Parameters
    ----------
    differences
        One difference per cell, shape (n_cells,).

    Returns
    -------
    The two-sided p-value, (1 + number of such resamples) / (1 + :data:`RESAMPLES`), and half the
    width of the symmetric 95 % confidence interval around the mean, which excludes 0 exactly if p
    is below 0.05.

    References
    ----------
    Davison & Hinkley, Bootstrap Methods and their Application (1997), section 4.4; Hall, Annals
    of Statistics 16:927 (1988), for the symmetric interval.
    """
    n, rng, observed = len(differences), np.random.default_rng(_SEED), differences.sum()
    at_a_time = max(_DRAWN_CELLS // n, 1)
    deviations = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, at_a_time):
        block = deviations[start : start + at_a_time]
        drawn = rng.integers(n, size=(len(block), n), dtype=np.int32)
        block[:] = np.abs(differences[drawn].sum(axis=1) - observed)
    p = (1 + int((deviations >= abs(observed)).sum())) / (1 + RESAMPLES)
    return p, float(np.quantile(deviations, CONFIDENCE, method="higher")) / n


def mcnemar(differences: NDArray[np.int64]) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Parameters
    ----------
    differences
        For each cell 1 if only the first method is right, -1 if only the second one is, else 0.

    References
    ----------
    Dietterich, Neural Computation 10:1895 (1998), section 3.1; exact instead of chi-squared.
    """
    first, second = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0
