"""Simulated datasets of the size of a real one, with known markers.

A hierarchical negative-binomial model. The count of gene g in cell i of type t has the mean

    size_i * exp(base_g + effect_tg + loading_g . state_i)

and a dispersion that depends on the gene. Types belong to families. Half of the markers are on in
some families, the other half in some types of any family: families differ in more genes than types
within a family. Marker effects range from weak to strong. All other genes have a small random
effect in each type, so that a method may confuse them with weak markers. ``state_i`` is independent
of the type: it changes all genes of a cell a little, as nuisance variation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import brentq

from mmlab.datasets.description import Description
from mmlab.errors import UserError
from mmlab.spec.protocol import MIN_CELLS_PER_CLASS

#: Suffix of the name of a dataset; after it the name lists the changed sizes, such as _cells200.
SIMULATED_SUFFIX = "_simulated"
#: Share of counts above 0 if that of the original dataset is unknown.
DEFAULT_DENSITY = 0.1
#: Number of markers, at most a tenth of the genes.
N_MARKERS = 50
#: Mean count of a marker that is off, and range of the increase of its log mean where it is on.
_OFF_MEAN, _ON_EFFECT = 0.2, (1.25, 4.0)
#: Standard deviation over types of the log mean of a gene that is not a marker.
_OTHER_EFFECT_SD = 0.3
#: Share of the families, or of the types, in which a marker is on.
_ON_SHARE = 1 / 3
#: Dimensions of a cell state; standard deviations of loadings, log sizes and log base means.
_N_STATES, _LOADING_SD, _SIZE_SD, _BASE_SD = 3, 0.2, 0.35, 1.2
#: Cells per block.
BLOCK_CELLS = 4096


@dataclass(frozen=True)
class Simulation:
    """Parameters of a simulation; the same values give the same cells.

    Attributes
    ----------
    like
        Name of the dataset whose sizes are used.
    n_cells, n_genes, n_types
        Sizes.
    density
        Approximate share of counts above 0.
    seed
        Seed of all random numbers.
    """

    like: str
    n_cells: int
    n_genes: int
    n_types: int
    density: float
    seed: int = 0

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """Yield counts of consecutive cells as CSR float32, (n_cells, n_genes)."""
        labels = self.labels()
        for number, start in enumerate(range(0, self.n_cells, BLOCK_CELLS)):
            y = labels[start : start + BLOCK_CELLS]
            yield self._model.draw(y, self._generator(2, number))

    def labels(self) -> NDArray[np.int64]:
        """Return the type index of each cell, shape (n_cells,).

        The sizes of the types differ as in tissue. Each type has enough cells to be split.

        Raises
        ------
        UserError
            There are too few cells for the number of types.
        """
        if self.n_cells < MIN_CELLS_PER_CLASS * self.n_types:
            raise UserError(
                f"{self.n_cells} cells are too few for {self.n_types} types, which need "
                f"{MIN_CELLS_PER_CLASS} each. Simulate at least "
                f"{MIN_CELLS_PER_CLASS * self.n_types} cells."
            )
        rng = self._generator(0)
        weights = np.sort(rng.lognormal(sigma=1.0, size=self.n_types))[::-1]
        free = self.n_cells - MIN_CELLS_PER_CLASS * self.n_types
        sizes = MIN_CELLS_PER_CLASS + np.floor(free * weights / weights.sum()).astype(np.int64)
        sizes[0] += self.n_cells - sizes.sum()
        return rng.permutation(np.repeat(np.arange(self.n_types), sizes))

    def load(self) -> ad.AnnData:
        """Return all cells in memory."""
        counts = sp.vstack(list(self.blocks()), format="csr")
        return ad.AnnData(X=counts, obs=self.obs(), var=self.var())

    def obs(self) -> pd.DataFrame:
        """Return the column ``cell_type``, one row per cell."""
        width = len(str(self.n_types))
        names = pd.Index([f"type_{i + 1:0{width}d}" for i in range(self.n_types)])
        labels = pd.Categorical.from_codes(self.labels(), categories=names)
        index = pd.RangeIndex(self.n_cells).astype(str)
        return pd.DataFrame({"cell_type": labels}, index="cell_" + index)

    def var(self) -> pd.DataFrame:
        """Return the column ``is_marker``, one row per gene."""
        index = pd.RangeIndex(self.n_genes).astype(str)
        return pd.DataFrame({"is_marker": self._model.is_marker}, index="gene_" + index)

    @cached_property
    def _model(self) -> _Model:
        return _Model(self)

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def description(self, name: str) -> Description:
        """Return the metadata of the simulated dataset with the given name."""
        origin = (
            f"simulated by mmlab: negative-binomial counts of the size of {self.like}, "
            f"{int(self._model.is_marker.sum())} known markers, seed {self.seed}"
        )
        return Description(
            name=name,
            title=f"simulated dataset of the size of {self.like}",
            origin=origin,
            license="MIT",
            n_cells=self.n_cells,
            n_genes=self.n_genes,
            n_classes=self.n_types,
            label_key="cell_type",
            normalization="total",
            notes=("Simulated counts: use them to compare methods, not to study tissue.",),
            simulated=True,
        )


class _Model:
    """Gene parameters of a simulation; they are drawn before the cells."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        rng = simulation._generator(1)
        n_genes, n_types = simulation.n_genes, simulation.n_types
        n_markers = max(min(N_MARKERS, n_genes // 10), 1)
        markers = rng.choice(n_genes, n_markers, replace=False)
        self.is_marker = np.zeros(n_genes, dtype=bool)
        self.is_marker[markers] = True
        self._dispersion = rng.lognormal(0.5, 0.5, n_genes).astype(np.float32)
        self._loading = rng.normal(0, _LOADING_SD, (_N_STATES, n_genes)).astype(np.float32)
        families = rng.permutation(n_types) % max(round(n_types**0.5), 2)
        effect = rng.normal(0, _OTHER_EFFECT_SD, (n_types, n_genes)).astype(np.float32)
        effect[:, markers] = 0
        for number, gene in enumerate(markers):
            groups = families if number % 2 == 0 else np.arange(n_types)
            n_groups = int(groups.max()) + 1
            on = rng.choice(n_groups, max(round(_ON_SHARE * n_groups), 1), replace=False)
            effect[np.isin(groups, on), gene] = rng.uniform(*_ON_EFFECT)
        self._effect = effect
        base = rng.normal(0, _BASE_SD, n_genes)
        base[markers] = np.log(_OFF_MEAN)
        others = ~self.is_marker
        base[others] += self._density_offset(base[others], self._dispersion[others])
        self._base = base.astype(np.float32)

    def _density_offset(self, base: NDArray[np.float64], dispersion: NDArray[np.float32]) -> float:
        """Return the offset of the log means that gives the requested share of counts above 0."""

        def excess(offset: float) -> float:
            mean = np.exp(base + offset)
            nonzero = 1 - (dispersion / (dispersion + mean)) ** dispersion
            return float(nonzero.mean()) - self._simulation.density

        return float(brentq(excess, -30, 30))

    def draw(self, y: NDArray[np.int64], rng: np.random.Generator) -> sp.csr_matrix:
        """Draw counts of cells of types ``y``; CSR float32, (n_cells, n_genes)."""
        shape = len(y), self._simulation.n_genes
        size = rng.normal(0, _SIZE_SD, (len(y), 1)).astype(np.float32)
        state = rng.standard_normal((len(y), _N_STATES), dtype=np.float32)
        mean = np.exp(self._base + self._effect[y] + size + state @ self._loading)
        mean *= rng.standard_gamma(self._dispersion, shape, dtype=np.float32) / self._dispersion
        counts = rng.poisson(mean)
        # With few genes, a cell may have no counts at all. It could not be normalised.
        counts[counts.sum(axis=1) == 0, int(self._base.argmax())] = 1
        return sp.csr_matrix(counts.astype(np.float32))
