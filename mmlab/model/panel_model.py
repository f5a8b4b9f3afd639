"""A panel ready for use: it tells the types of new cells, and all their genes, from its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.neighbors import KNeighborsClassifier

from mmlab.datasets.cells import Cells, Normalization
from mmlab.datasets.io.cell_source import from_anndata
from mmlab.datasets.io.count_search import inspect_location
from mmlab.errors import UserError
from mmlab.metrics.reconstruction import linear_coefficients, with_intercept
from mmlab.preprocessing.expression import Expression
from mmlab.preprocessing.normalization import log_normalize, standardize
from mmlab.preprocessing.recipes import gene_statistics
from mmlab.preprocessing.splits import Split, subsample
from mmlab.spec.protocol import MAX_FIT_CELLS

if TYPE_CHECKING:
    import anndata as ad

_WEIGHTS, _CONFIG = "model.safetensors", "model.json"
#: Missing genes that an error names.
_NAMED = 10


@dataclass(frozen=True)
class Model:
    """What a benchmark fits on a panel, kept: 5 nearest neighbours and a linear regression.

    Attributes
    ----------
    genes
        All genes of the data that it was fitted on.
    panel
        Indices of the panel among them, best first, shape (n_markers,).
    classes
        Names of the cell types.
    normalization
        What happens to counts, see :func:`mmlab.preprocessing.normalization.log_normalize`.
    mean, sd
        Of each gene over the training cells, log1p-normalised, float32, shape (n_genes,).
    cells
        The cells that types are told by, z-scores of the panel, float32 (n_cells, n_markers).
    labels
        Their class indices, int64.
    coefficients
        Of the regression of the z-scores of all genes, float32, (n_markers + 1, n_genes); the last
        row is the intercept.
    about
        Where it comes from, for people and for the registry.
    """

    genes: list[str]
    panel: NDArray[np.int64]
    classes: list[str]
    normalization: Normalization
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    cells: NDArray[np.float32]
    labels: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    about: dict[str, Any]

    @property
    def markers(self) -> list[str]:
        """Names of the panel's genes, best first."""
        return [self.genes[index] for index in self.panel]

    @cached_property
    def _classifier(self) -> KNeighborsClassifier:
        return KNeighborsClassifier().fit(self.cells, self.labels)

    def predict(self, data: ad.AnnData | pd.DataFrame) -> pd.DataFrame:
        """Types of cells.

        Parameters
        ----------
        data
            AnnData with raw counts of all genes of the training data, in ``X``; or a data frame
            with log1p-normalised expression, a column a gene of the panel. Other genes are
            ignored, but for the total counts of AnnData.

        Returns
        -------
        Columns cell_type and share (of the five nearest training cells that are of this type), a
        row a cell.

        Raises
        ------
        UserError
            Genes are missing (they are named), values are not finite, AnnData holds no counts, or
            the data frame does.
        """
        z, names = self._z_scores(data)
        shares = self._classifier.predict_proba(z)
        # Every class has training cells: the columns of the shares are the classes.
        best = shares.argmax(axis=1)
        types = np.asarray(self.classes)[best]
        return pd.DataFrame({"cell_type": types, "share": shares.max(axis=1)}, index=names)

    def reconstruct(self, data: ad.AnnData | pd.DataFrame) -> pd.DataFrame:
        """All genes from the panel, log1p-normalised expression; ``data`` as in :meth:`predict`."""
        z, names = self._z_scores(data)
        rebuilt = with_intercept(z) @ self.coefficients
        return pd.DataFrame(rebuilt * self.sd + self.mean, index=names, columns=self.genes)

    def _z_scores(self, data: ad.AnnData | pd.DataFrame) -> tuple[NDArray[np.float32], pd.Index]:
        """z-scores of the panel's genes, shape (n_cells, n_markers), and the cells' names."""
        if isinstance(data, pd.DataFrame):
            _require(self.markers, data.columns, "the data frame")
            values = data[self.markers].to_numpy(dtype=np.float32, copy=True)
            _refuse_counts(values)
            names = data.index
        else:
            needed = self.markers if self.normalization == "none" else self.genes
            _require(needed, data.var_names, "the AnnData")
            counts = _require_counts(data[:, needed])
            values = log_normalize(counts, self.normalization).toarray()
            values = values if needed is self.markers else values[:, self.panel]
            names = data.obs_names
        if not np.isfinite(values).all():
            raise UserError("the cells hold values that are not finite numbers.")
        return standardize(values, self.mean[self.panel], self.sd[self.panel]), names

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json``."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        # safetensors writes the memory of an array as it lies, whatever its strides say.
        arrays = {
            name: np.ascontiguousarray(value)
            for name, value in content.items()
            if isinstance(value, np.ndarray)
        }
        plain = {name: value for name, value in content.items() if name not in arrays}
        save_file(arrays, folder / _WEIGHTS)
        (folder / _CONFIG).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Model:
        """What :meth:`save` wrote; nothing in it is executed."""
        content: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        return cls(**content | load_file(folder / _WEIGHTS))


def fit_model(panel: NDArray[np.int64], cells: Cells, split: Split, about: dict[str, Any]) -> Model:
    """The classifier and the regression that the benchmark judges a panel by on this split.

    Statistics of the genes come from the training cells; both are fitted on the training and
    validation cells.
    """
    log1p = Expression(cells.adata.X, "log1p", cells.normalization)
    mean, sd = gene_statistics(log1p, split.train)
    fit_on = split.train_validation
    fit_on = fit_on[subsample(len(fit_on), MAX_FIT_CELLS)]
    z = replace(log1p, layer="zscore", mean=mean, sd=sd)[fit_on]
    return Model(
        genes=cells.genes.tolist(),
        panel=panel,
        classes=cells.classes,
        normalization=cells.normalization,
        mean=mean,
        sd=sd,
        cells=z[:, panel].toarray(),
        labels=cells.y[fit_on],
        coefficients=linear_coefficients(z, panel),
        about=about,
    )


def _refuse_counts(values: NDArray[np.float32]) -> None:
    """The logarithm of a count plus one is no integer, unless it is 0."""
    if values.any() and np.isfinite(values).all() and (values == np.rint(values)).all():
        raise UserError(
            f"the data frame looks like counts (integers up to {values.max():.0f}): "
            "log1p-normalised expression is needed, or AnnData with the counts of all genes."
        )


def _require_counts(adata: ad.AnnData) -> sp.csr_matrix:
    source = from_anndata(adata)
    looked = inspect_location(replace(source.X, title="X of the AnnData"), source)
    if looked.problems or looked.matrix is None:
        raise UserError("; ".join(looked.problems) + ".")
    return looked.matrix.load()


def _require(genes: Iterable[str], present: pd.Index, where: str) -> None:
    known = set(map(str, present))
    if len(known) < len(present):
        raise UserError(f"{where} holds a gene twice: make the names unique first.")
    missing = [gene for gene in genes if gene not in known]
    if missing:
        shown = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise UserError(f"{where} lacks {len(missing)} genes that the model needs: {shown}.")
