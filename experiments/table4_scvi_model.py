"""Training of scVI, and its reconstructions of cells for table 4."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from table4_measures import Matrix, Scale

from mmlab.datasets.cells import Cells
from mmlab.preprocessing.splits import Split


def fitted_scvi(cells: Cells, split: Split, seed: int, epochs: int | None) -> Any:
    """Train scVI with its defaults on the raw counts of the training cells.

    It gets the same validation cells; with the defaults these do not influence the training.
    """
    import scvi

    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = seed
    seen = cells.adata[split.train_validation].copy()
    scvi.model.SCVI.setup_anndata(seen)
    model = scvi.model.SCVI(seen)
    validation_split = np.split(np.arange(seen.n_obs), [len(split.train)])
    with warnings.catch_warnings():
        # Warnings of Lightning about its own calls of torch and its logging interval.
        warnings.filterwarnings("ignore", module="lightning")
        model.train(
            max_epochs=epochs,
            datasplitter_kwargs={"external_indexing": validation_split},
            enable_progress_bar=False,
        )
    return model


def posterior_samples(
    model: Any, cells: Cells, which: NDArray[np.int64], n_samples: int
) -> Iterator[sp.csr_matrix]:
    """Yield posterior predictive counts of the cells ``which``, one sample at a time."""
    test_cells = cells.adata[which].copy()
    for _ in range(n_samples):
        sample = model.posterior_predictive_sample(test_cells, n_samples=1)
        yield sp.csr_matrix(sample.to_scipy_sparse())


def reconstructed_by_scvi(samples: Iterable[sp.csr_matrix], scale: Scale) -> dict[str, Matrix]:
    """Return z-scores of the first sample, their mean over all, and those of mean counts."""
    remaining = iter(samples)
    sample = next(remaining)
    first, n = scale.z_scores(sample), 1
    total, counts = first.astype(np.float64), sample.astype(np.float64)
    for sample in remaining:
        n, total, counts = n + 1, total + scale.z_scores(sample), counts + sample
    return {
        "scvi_sample": first,
        "scvi_mean": (total / n).astype(np.float32),
        "scvi_mean_counts": scale.z_scores(sp.csr_matrix(counts / n)),
    }
