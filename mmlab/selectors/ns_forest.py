"""NS-Forest: small combinations of genes that are expressed in one class only."""

from __future__ import annotations

from itertools import combinations, zip_longest
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from mmlab.errors import UserError
from mmlab.preprocessing.expression import to_dense
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.direct import DirectSelector
from mmlab.selectors.training_data import Indices

#: Genes of a class that the forest passes on, and those that combinations are formed of.
N_IMPORTANT, N_COMBINED = 15, 6


class NSForest(DirectSelector):
    """For each class, the combination of genes that marks its cells with the best F-beta.

    A gene's binary score for a class says how far its median in every other class lies below
    the one in the class. Genes with an outstanding score are ranked by a forest of the class
    against the rest; of the best by binary score among those, each predicts the class by one
    threshold, and the combination whose predictions agree on the class with the highest F-beta
    (beta = 0.5: precision counts more) is chosen.

    The panel takes the first gene of every class's combination, then the second, ...; then the
    candidates of the classes in the same way; then other genes, by their largest binary score.
    The score of a gene is its largest binary score over the classes, in [0, 1], plus 1 for
    the genes of a combination.

    Parameters
    ----------
    n_markers
        Size of the panel.
    n_trees
        Trees in the forest of each class.
    seed
        Of the forests.

    References
    ----------
    Aevermann et al., "A machine learning method for the discovery of minimum marker gene
    combinations for cell type identification from single-cell RNA sequencing", Genome Research
    2021, methods; the threshold of the binary scores as in NS-Forest 4.1.
    """

    layer: ClassVar[Layer] = "log1p"
    summary: ClassVar[str] = "gene combinations expressed in one type only (NS-Forest)"
    reference: ClassVar[str] = "Aevermann et al., Genome Research 2021"

    def __init__(self, n_markers: int = 50, *, n_trees: int = 1000, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.n_trees = n_trees
        self.seed = seed

    def check_params(self) -> None:
        """Raise one error with every parameter that is out of its range."""
        if self.n_trees < 1:
            raise UserError(f"n_trees is {self.n_trees}, but must be at least 1.")

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        cells, labels = to_dense(X), np.asarray(y)
        classes = np.unique(labels)
        medians = np.stack([np.median(cells[labels == c], axis=0) for c in classes])
        binary = binary_scores(medians)
        chosen, candidates = [], []
        for score, median, outstanding, label in zip(
            binary, medians, outstanding_genes(binary, medians), classes, strict=True
        ):
            is_class = labels == label
            genes = self._important(cells, is_class, outstanding[median[outstanding] > 0])
            genes = genes[np.argsort(-score[genes], kind="stable")]
            chosen.append(self._best_combination(cells, is_class, genes[:N_COMBINED]))
            others = np.setdiff1d(outstanding, genes)
            others = others[np.argsort(-score[others], kind="stable")]
            candidates.append(np.concatenate([genes, others]))
        scores = binary.max(axis=0)
        rest = np.argsort(-scores, kind="stable")
        ranking = [*round_robin(chosen, binary), *round_robin(candidates, binary), *rest.tolist()]
        scores[np.concatenate(chosen)] += 1
        return list(dict.fromkeys(ranking)), scores

    def _important(
        self, cells: NDArray[np.float32], is_class: NDArray[np.bool_], genes: Indices
    ) -> Indices:
        """The most important genes in a forest of the class against the rest."""
        if not len(genes):
            return genes
        forest = RandomForestClassifier(self.n_trees, random_state=self.seed)
        importance = forest.fit(cells[:, genes], is_class).feature_importances_
        return genes[np.argsort(-importance, kind="stable")[:N_IMPORTANT]]

    def _best_combination(
        self, cells: NDArray[np.float32], is_class: NDArray[np.bool_], genes: Indices
    ) -> Indices:
        """The combination of best F-beta; of equal ones the smallest, then the first."""
        marked = []
        for gene in genes:
            x = cells[:, [gene]]
            stump = DecisionTreeClassifier(max_leaf_nodes=2, random_state=self.seed)
            marked.append(stump.fit(x, is_class).predict(x))
        best, best_value = genes[:0], -1.0
        for size in range(1, len(genes) + 1):
            for members in combinations(range(len(genes)), size):
                predicted = np.logical_and.reduce([marked[i] for i in members])
                value = f_beta(is_class, predicted)
                if value > best_value:
                    best, best_value = genes[list(members)], value
        return best


def binary_scores(medians: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far a gene is from being expressed in other classes (NS-Forest).

    Parameters
    ----------
    medians
        Median log1p value of each gene in each class, shape (n_classes, n_genes), not negative.

    Returns
    -------
    Mean over the other classes of ``max(0, 1 - median there / median here)``, in [0, 1], 0
    where the median here is 0; shape of ``medians``.
    """
    scores = np.zeros(medians.shape)
    expressed = medians > 0
    for score, median, here in zip(scores, medians.astype(np.float64), expressed, strict=True):
        fall = np.maximum(0, 1 - medians[:, here] / median[here])
        score[here] = fall.sum(axis=0) / max(len(medians) - 1, 1)
    return scores


def outstanding_genes(binary: NDArray[np.float64], medians: NDArray[np.float32]) -> list[Indices]:
    """For each class, genes at least two standard deviations above the mean binary score.

    Mean and deviation are over all classes and the genes with a positive median in some class.
    """
    expressed = binary[:, np.any(medians > 0, axis=0)]
    if not expressed.size:
        return [np.empty(0, dtype=np.int64)] * len(binary)
    threshold = expressed.mean() + 2 * expressed.std()
    return [np.flatnonzero((score >= threshold) & (score > 0)) for score in binary]


def f_beta(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], beta: float = 0.5) -> float:
    """F-beta of a prediction, 0 where nothing is predicted."""
    hits = np.count_nonzero(truth & predicted)
    weight = beta**2
    wanted, found = np.count_nonzero(truth), np.count_nonzero(predicted)
    return (1 + weight) * hits / (weight * wanted + found) if found else 0.0


def round_robin(lists: list[Indices], strength: NDArray[np.float64]) -> list[int]:
    """The first gene of every list, then the second, ...; within a round the strongest first.

    Parameters
    ----------
    lists
        Gene indices, a list a class, of any length.
    strength
        Shape (n_classes, n_genes).
    """
    order: list[int] = []
    for genes in zip_longest(*(genes.tolist() for genes in lists)):
        present = [(c, gene) for c, gene in enumerate(genes) if gene is not None]
        present.sort(key=lambda place: -strength[place])
        order += [gene for _, gene in present]
    return order
