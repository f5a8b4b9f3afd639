"""NS-Forest: small combinations of genes that are expressed in one class only."""

from __future__ import annotations

from itertools import combinations, zip_longest
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import to_dense
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.parameter_ranges import count_problems
from mmlab.selectors.ranking_selector import RankingSelector
from mmlab.selectors.training_data import Indices

#: Genes per class that are kept by their importance in the forest.
N_IMPORTANT = 15
#: Genes per class from which combinations are formed.
N_COMBINED = 6


class NSForest(RankingSelector):
    """For each class, the combination of genes that identifies its cells with the best F-beta.

    The binary score of a gene for a class measures how far its median log1p value in the other
    classes lies below the median in the class. Genes with a high binary score (two standard
    deviations above the mean) are candidates of the class. A random forest of the class against
    the rest keeps the 15 most important candidates, and of these the 6 with the highest binary
    score are combined: a cell is positive for a gene if its expression exceeds the threshold of
    :func:`expressed_above_threshold`, and for a combination if it is positive for all of its
    genes. The combination whose positive cells have the highest F-beta (beta = 0.5, which weights
    precision more than recall) is chosen; of a tie, the smallest combination, then the one with
    the higher binary scores.

    The panel is the first gene of the combination of every class, then the second, and so on;
    then the other candidates of the classes in the same way; then the remaining genes by their
    largest binary score. The score of a gene is its largest binary score over the classes, in
    [0, 1], plus 1 for the genes of a combination.

    Parameters
    ----------
    n_markers
        Size of the panel.
    n_trees
        Number of trees in the forest of each class, at least 1.
    seed
        Seed of the forests.

    References
    ----------
    Aevermann et al., "A machine learning method for the discovery of minimum marker gene
    combinations for cell type identification from single-cell RNA sequencing", Genome Research
    2021, methods. The threshold of the binary scores is the setting ``BinaryFirst_high`` of
    NS-Forest 4.1, the numbers of trees and genes are its defaults.
    """

    layer: ClassVar[Layer] = "log1p"
    summary: ClassVar[str] = "gene combinations expressed in one cell type only (NS-Forest)"
    reference: ClassVar[str] = "Aevermann et al., Genome Research 2021"

    def __init__(self, n_markers: int = 50, *, n_trees: int = 1000, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.n_trees = n_trees
        self.seed = seed

    def check_params(self) -> None:
        """Raise one ``UserError`` that lists all parameters out of range."""
        if problems := count_problems(vars(self), ["n_trees"]):
            raise UserError(join_problems(problems))

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        cells, labels = to_dense(X), np.asarray(y)
        classes = np.unique(labels)
        medians = np.stack([np.median(cells[labels == c], axis=0) for c in classes])
        binary = binary_scores(medians)
        chosen, candidates = [], []
        for score, high, label in zip(
            binary, high_scoring_genes(binary, medians), classes, strict=True
        ):
            is_class = labels == label
            genes = self._important(cells, is_class, high)
            genes = genes[np.argsort(-score[genes], kind="stable")]
            best = best_combination(cells[:, genes[:N_COMBINED]], is_class)
            chosen.append(genes[best])
            others = np.setdiff1d(high, genes)
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
        """Return the most important ``genes`` in a forest of the class against the rest."""
        if not len(genes):
            return genes
        forest = RandomForestClassifier(self.n_trees, random_state=self.seed)
        importance = forest.fit(cells[:, genes], is_class).feature_importances_
        return genes[np.argsort(-importance, kind="stable")[:N_IMPORTANT]]


def best_combination(x: NDArray[np.float32], is_class: NDArray[np.bool_]) -> Indices:
    """Return the columns of ``x`` whose combination identifies the class with the best F-beta.

    Parameters
    ----------
    x
        log1p values of a few genes, best first, shape (n_cells, n_genes). All 2^n_genes - 1
        combinations are tried.
    is_class
        Whether each cell belongs to the class, shape (n_cells,).

    Returns
    -------
    Column indices in ascending order. Of a tie, the smallest combination, then the first in
    lexicographic order.
    """
    positive = [expressed_above_threshold(gene, is_class) for gene in x.T]
    best, best_value = np.empty(0, dtype=np.int64), -1.0
    for size in range(1, len(positive) + 1):
        for members in combinations(range(len(positive)), size):
            value = f_beta(is_class, np.logical_and.reduce([positive[i] for i in members]))
            if value > best_value:
                best, best_value = np.array(members), value
    return best


def expressed_above_threshold(
    gene: NDArray[np.float32], is_class: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return whether the expression of a gene exceeds the threshold that best splits off a class.

    The threshold is that of a decision tree with one split. Its predictions are not used: of a
    rare class, both leaves may hold a minority.

    Parameters
    ----------
    gene
        log1p values, shape (n_cells,).
    is_class
        Whether each cell belongs to the class, shape (n_cells,).

    Returns
    -------
    Shape (n_cells,); False everywhere if the tree has no split.
    """
    stump = DecisionTreeClassifier(max_leaf_nodes=2, random_state=0).fit(gene[:, None], is_class)
    return np.asarray(stump.apply(gene[:, None]) == stump.tree_.children_right[0])


def binary_scores(medians: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the binary score of each gene for each class: how specific its expression is.

    Parameters
    ----------
    medians
        Median log1p value of each gene in each class, shape (n_classes, n_genes), not negative.

    Returns
    -------
    Mean over the other classes of ``max(0, 1 - median in the other class / median in the
    class)``, in [0, 1], shape of ``medians``; 0 where the median in the class is 0.
    """
    scores = np.zeros(medians.shape)
    expressed = medians > 0
    for score, median, genes in zip(scores, medians.astype(np.float64), expressed, strict=True):
        fall = np.maximum(0, 1 - medians[:, genes] / median[genes])
        score[genes] = fall.sum(axis=0) / max(len(medians) - 1, 1)
    return scores


def high_scoring_genes(binary: NDArray[np.float64], medians: NDArray[np.float32]) -> list[Indices]:
    """Return, for each class, the genes whose binary score is at least mean + 2 sd.

    Mean and standard deviation are over all classes and the genes with a positive median in at
    least one class. Genes with a binary score of 0, such as those whose median in the class is
    0, are omitted.
    """
    expressed = binary[:, np.any(medians > 0, axis=0)]
    if expressed.size < 2:
        return [np.empty(0, dtype=np.int64)] * len(binary)
    threshold = expressed.mean() + 2 * expressed.std(ddof=1)
    return [np.flatnonzero((score >= threshold) & (score > 0)) for score in binary]


def f_beta(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], beta: float = 0.5) -> float:
    """Return the F-beta score of a prediction; 0 if no cell is predicted."""
    hits = np.count_nonzero(truth & predicted)
    weight = beta**2
    n_true, n_predicted = np.count_nonzero(truth), np.count_nonzero(predicted)
    return (1 + weight) * hits / (weight * n_true + n_predicted) if n_predicted else 0.0


def round_robin(lists: list[Indices], strength: NDArray[np.float64]) -> list[int]:
    """Return the first gene of every list, then the second of every list, and so on.

    Parameters
    ----------
    lists
        Gene indices, one list per class, of any length.
    strength
        Shape (n_classes, n_genes). Within a round, the genes with the largest strength for their
        class come first.
    """
    order: list[int] = []
    for genes in zip_longest(*(genes.tolist() for genes in lists)):
        present = [(c, gene) for c, gene in enumerate(genes) if gene is not None]
        present.sort(key=lambda class_and_gene: -strength[class_and_gene])
        order += [gene for _, gene in present]
    return order
