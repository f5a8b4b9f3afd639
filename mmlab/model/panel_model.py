"""A fitted panel: predicts cell types and reconstructs expression from the panel's genes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.neighbors import KNeighborsClassifier

from mmlab.datasets.cells import Cells, Normalization
from mmlab.datasets.io.python_inputs import require_anndata
from mmlab.errors import UserError
from mmlab.metrics.reconstruction import apply_coefficients, linear_coefficients
from mmlab.model.new_cells import refuse_counts, require_counts, require_genes
from mmlab.preprocessing.expression import Expression
from mmlab.preprocessing.normalization import log_normalize, standardize
from mmlab.preprocessing.recipes import gene_statistics
from mmlab.preprocessing.splits import Split, subsample
from mmlab.spec.protocol import MAX_FIT_CELLS

if TYPE_CHECKING:
    import anndata as ad

_WEIGHTS, _CONFIG = "model.safetensors", "model.json"
#: Maximum number of genes that the representation of a model lists.
_MAX_LISTED = 10


@dataclass(frozen=True)
class Model:
    """A panel with the fitted 5-nearest-neighbours classifier and linear regression of a benchmark.

    Attributes
    ----------
    genes
        Names of all genes of the training data.
    panel
        Indices of the panel's genes in ``genes``, best first, int64, shape (n_markers,).
    classes
        Names of the cell types.
    normalization
        Normalisation of counts, see :func:`mmlab.preprocessing.normalization.log_normalize`.
    mean, sd
        Mean and standard deviation of each gene over the training cells, log1p-normalised
        expression, float32, shape (n_genes,).
    cells
        Reference cells of the classifier, z-scores of the panel's genes, float32, shape
        (n_cells, n_markers).
    labels
        Class index of each reference cell, int64, shape (n_cells,).
    coefficients
        Coefficients of the regression of the z-scores of all genes on those of the panel,
        float64 (older models: float32), shape (n_markers + 1, n_genes); the last row is the
        intercept.
    about
        Origin of the model, for display and for the registry.
    gene_ids
        Original names of ``genes``, by which new cells may name them, too; empty if there are none.
    """

    genes: list[str]
    panel: NDArray[np.int64]
    classes: list[str]
    normalization: Normalization
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    cells: NDArray[np.float32]
    labels: NDArray[np.int64]
    coefficients: NDArray[np.float64]
    about: dict[str, Any]
    gene_ids: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return the first markers and the sizes on one line; arrays would fill many screens."""
        markers = ", ".join(self.markers[:_MAX_LISTED])
        more = ", ..." if len(self.panel) > _MAX_LISTED else ""
        return (
            f"Model({len(self.panel)} markers of {len(self.genes)} genes: {markers}{more}; "
            f"{len(self.classes)} cell types, {len(self.labels)} reference cells, "
            f"normalization={self.normalization!r})"
        )

    @property
    def markers(self) -> list[str]:
        """Names of the panel's genes, best first."""
        return [self.genes[index] for index in self.panel]

    @cached_property
    def _classifier(self) -> KNeighborsClassifier:
        return KNeighborsClassifier().fit(self.cells, self.labels)

    def predict(
        self, data: ad.AnnData | pd.DataFrame, *, round_counts: bool = False
    ) -> pd.DataFrame:
        """Predict the types of cells.

        Parameters
        ----------
        data
            AnnData with raw counts of all genes of the training data in ``X``, or a data frame
            with log1p-normalised expression and one column per gene of the panel. Of AnnData,
            the other genes of the training data are only used to normalise the counts. All
            other genes are ignored.
        round_counts
            Round fractional counts of the AnnData (ambient-corrected or estimated) to integers;
            without it they are refused.

        Returns
        -------
        One row per cell. Columns: cell_type, and share, the fraction of the five nearest
        reference cells that are of this type.

        Raises
        ------
        UserError
            Genes are missing, values are not finite, the AnnData has no counts in ``X``, or the
            data frame has counts.
        """
        z, names = self._z_scores(data, round_counts)
        shares = self._classifier.predict_proba(z)
        # Every class has reference cells, so column i of the shares is class i.
        best = shares.argmax(axis=1)
        types = np.asarray(self.classes)[best]
        return pd.DataFrame({"cell_type": types, "share": shares.max(axis=1)}, index=names)

    def reconstruct(
        self, data: ad.AnnData | pd.DataFrame, *, round_counts: bool = False
    ) -> pd.DataFrame:
        """Reconstruct the log1p-normalised expression of all genes from the panel's genes.

        Parameters
        ----------
        data, round_counts
            As in :meth:`predict`.

        Returns
        -------
        One row per cell, one column per gene.
        """
        z, names = self._z_scores(data, round_counts)
        reconstructed = apply_coefficients(self.coefficients, z)
        return pd.DataFrame(reconstructed * self.sd + self.mean, index=names, columns=self.genes)

    def _z_scores(
        self, data: ad.AnnData | pd.DataFrame, round_counts: bool
    ) -> tuple[NDArray[np.float32], pd.Index]:
        """Return z-scores of the panel's genes, shape (n_cells, n_markers), and the cell names."""
        if isinstance(data, pd.DataFrame):
            positions = self._find(self.markers, data.columns, "the data frame")
            values = data.iloc[:, positions].to_numpy(dtype=np.float32, copy=True)
            refuse_counts(values)
            names = data.index
        else:
            require_anndata(data, "data", " or a data frame")
            needed = self.markers if self.normalization == "none" else self.genes
            positions = self._find(needed, data.var_names, "the AnnData")
            counts = require_counts(data[:, positions], round_counts)
            values = log_normalize(counts, self.normalization).toarray()
            values = values if needed is self.markers else values[:, self.panel]
            names = data.obs_names
        if not np.isfinite(values).all():
            raise UserError("the cells have values that are not finite numbers (NaN or infinite).")
        return standardize(values, self.mean[self.panel], self.sd[self.panel]), names

    def _find(self, genes: list[str], present: pd.Index, where: str) -> NDArray[np.intp]:
        """Return the positions of genes among names, which may be original ones."""
        known = set(self.genes)
        by_id = dict(zip(self.gene_ids, self.genes, strict=False))
        names = pd.Index([n if n in known else by_id.get(n, n) for n in map(str, present)])
        require_genes(genes, names, where)
        return names.get_indexer(pd.Index(genes))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        # safetensors writes the buffer of an array and ignores its strides.
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
        """Load a model that :meth:`save` wrote; no code is executed."""
        content: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        return cls(**content | load_file(folder / _WEIGHTS))


def fit_model(panel: NDArray[np.int64], cells: Cells, split: Split, about: dict[str, Any]) -> Model:
    """Fit the classifier and the regression by which a benchmark evaluates a panel on a split.

    Mean and standard deviation of the genes are computed on the training cells. Classifier and
    regression are fitted on training and validation cells (a sample if there are more than
    ``MAX_FIT_CELLS``).

    Parameters
    ----------
    panel
        Gene indices, best first.
    cells
        The dataset.
    split
        Training, validation and test cells; the test cells are not used.
    about
        Origin of the model, see :class:`Model`.
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
        gene_ids=[] if cells.gene_ids is None else cells.gene_ids.tolist(),
    )
