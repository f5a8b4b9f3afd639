"""Stand-ins of a dataset's true size: simulated counts whose markers are known.

A hierarchical negative-binomial model. Cell i of type t has in gene g a count of mean

    size_i * exp(base_g + effect_tg + loading_g . state_i)

and of the gene's own dispersion. Types belong to families. Half of the planted markers are on in
some families, the others in some types of whatever family: families differ in more genes than the
types within one. Some markers rise a little where they are on, others a lot; and all other genes
differ a little from type to type, so a method can take one of these for a weak marker. ``state_i``
is drawn for each cell alone: it moves all genes a little, together, and means nothing.
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

#: Between the name of a dataset and what its stand-in differs in.
SIMULATED_SUFFIX = "_simulated"
#: Share of the counts above 0 where nobody has measured it.
DENSITY = 0.1
#: Planted markers, unless that is more than a tenth of the genes.
N_MARKERS = 50
#: Mean count of a marker that is off, and what the log of it rises by where it is on, at least
#: and at most.
_OFF, _ON = 0.2, (1.25, 4.0)
#: Standard deviation over the types of the log mean of any other gene.
_OTHERS = 0.3
#: Share of the families, or of the types, in which a marker is on.
_ON_IN = 1 / 3
_STATES, _LOADING, _SIZE_SPREAD, _BASE_SPREAD = 3, 0.2, 0.35, 1.2
_AT_ONCE = 4096


@dataclass(frozen=True)
class Simulation:
    """What is simulated; the same values give the same cells.

    Attributes
    ----------
    like
        Name of the dataset that it stands in for.
    n_cells, n_genes, n_types
        Sizes.
    density
        Share of the counts above 0, about.
    seed
        Of everything random.
    """

    like: str
    n_cells: int
    n_genes: int
    n_types: int
    density: float
    seed: int = 0

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """Counts of consecutive cells (n_cells, n_genes), float32."""
        labels = self.labels()
        for number, start in enumerate(range(0, self.n_cells, _AT_ONCE)):
            y = labels[start : start + _AT_ONCE]
            yield self._model.draw(y, self._random(2, number))

    def labels(self) -> NDArray[np.int64]:
        """Type index of each cell: types differ in size as in tissue, each can be split."""
        if self.n_cells < MIN_CELLS_PER_CLASS * self.n_types:
            raise UserError(
                f"{self.n_cells} cells are too few for {self.n_types} types, which need "
                f"{MIN_CELLS_PER_CLASS} each."
            )
        rng = self._random(0)
        weights = np.sort(rng.lognormal(sigma=1.0, size=self.n_types))[::-1]
        free = self.n_cells - MIN_CELLS_PER_CLASS * self.n_types
        sizes = MIN_CELLS_PER_CLASS + np.floor(free * weights / weights.sum()).astype(np.int64)
        sizes[0] += self.n_cells - sizes.sum()
        return rng.permutation(np.repeat(np.arange(self.n_types), sizes))

    def load(self) -> ad.AnnData:
        """All of it in memory."""
        counts = sp.vstack(list(self.blocks()), format="csr")
        return ad.AnnData(X=counts, obs=self.obs(), var=self.var())

    def obs(self) -> pd.DataFrame:
        """Column ``cell_type``, a row a cell."""
        width = len(str(self.n_types))
        names = pd.Index([f"type_{i + 1:0{width}d}" for i in range(self.n_types)])
        labels = pd.Categorical.from_codes(self.labels(), categories=names)
        index = pd.RangeIndex(self.n_cells).astype(str)
        return pd.DataFrame({"cell_type": labels}, index="cell_" + index)

    def var(self) -> pd.DataFrame:
        """Column ``is_marker``, a row a gene."""
        index = pd.RangeIndex(self.n_genes).astype(str)
        return pd.DataFrame({"is_marker": self._model.is_marker}, index="gene_" + index)

    @cached_property
    def _model(self) -> _Model:
        return _Model(self)

    def _random(self, *place: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=place))

    def description(self, name: str) -> Description:
        """Description of the cells under a name."""
        origin = (
            f"simulated by mmlab: negative-binomial counts of the size of {self.like}, "
            f"{int(self._model.is_marker.sum())} planted markers, seed {self.seed}"
        )
        return Description(
            name=name,
            title=f"simulated stand-in of {self.like}",
            origin=origin,
            license="MIT",
            n_cells=self.n_cells,
            n_genes=self.n_genes,
            n_classes=self.n_types,
            label_key="cell_type",
            normalization="total",
            notes=("A stand-in compares methods; of tissue it says nothing.",),
            simulated=True,
        )


class _Model:
    """What all cells have in common, drawn before the first of them."""

    def __init__(self, what: Simulation) -> None:
        self._what = what
        rng = what._random(1)
        n_genes, n_types = what.n_genes, what.n_types
        n_markers = max(min(N_MARKERS, n_genes // 10), 1)
        markers = rng.choice(n_genes, n_markers, replace=False)
        self.is_marker = np.zeros(n_genes, dtype=bool)
        self.is_marker[markers] = True
        self._dispersion = rng.lognormal(0.5, 0.5, n_genes).astype(np.float32)
        self._loading = rng.normal(0, _LOADING, (_STATES, n_genes)).astype(np.float32)
        families = rng.permutation(n_types) % max(round(n_types**0.5), 2)
        effect = rng.normal(0, _OTHERS, (n_types, n_genes)).astype(np.float32)
        effect[:, markers] = 0
        for number, gene in enumerate(markers):
            groups = families if number % 2 == 0 else np.arange(n_types)
            n_groups = int(groups.max()) + 1
            on = rng.choice(n_groups, max(round(_ON_IN * n_groups), 1), replace=False)
            effect[np.isin(groups, on), gene] = rng.uniform(*_ON)
        self._effect = effect
        base = rng.normal(0, _BASE_SPREAD, n_genes)
        base[markers] = np.log(_OFF)
        others = ~self.is_marker
        base[others] += self._level(base[others], self._dispersion[others])
        self._base = base.astype(np.float32)

    def _level(self, base: NDArray[np.float64], dispersion: NDArray[np.float32]) -> float:
        """What is added to the log means to have the wished share of counts above 0."""

        def excess(level: float) -> float:
            mean = np.exp(base + level)
            present = 1 - (dispersion / (dispersion + mean)) ** dispersion
            return float(present.mean()) - self._what.density

        return float(brentq(excess, -30, 30))

    def draw(self, y: NDArray[np.int64], rng: np.random.Generator) -> sp.csr_matrix:
        """Counts of cells of types ``y``; (n_cells, n_genes), float32."""
        shape = len(y), self._what.n_genes
        size = rng.normal(0, _SIZE_SPREAD, (len(y), 1)).astype(np.float32)
        state = rng.standard_normal((len(y), _STATES), dtype=np.float32)
        mean = np.exp(self._base + self._effect[y] + size + state @ self._loading)
        mean *= rng.standard_gamma(self._dispersion, shape, dtype=np.float32) / self._dispersion
        counts = rng.poisson(mean)
        # A cell of few genes may have nothing at all, and could not be normalised.
        counts[counts.sum(axis=1) == 0, int(self._base.argmax())] = 1
        return sp.csr_matrix(counts.astype(np.float32))
