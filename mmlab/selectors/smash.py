"""SMaSH: genes ranked by their importance in a random forest that predicts the class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.parameter_ranges import count_problems
from mmlab.selectors.ranking_selector import RankingSelector


class Smash(RankingSelector):
    """Genes with the largest Gini importance in a random forest, on z-scores.

    The forest predicts the class with balanced class weights. This is the random forest mode of
    SMaSH as the published benchmark used it, without the gene filters that the SMaSH package
    applies first. The score of a gene is its importance, in [0, 1]; the scores sum to 1.

    Parameters
    ----------
    n_markers
        Size of the panel.
    n_trees
        Number of trees in the forest, at least 1.
    seed
        Seed of the forest.

    References
    ----------
    Nelson et al., "SMaSH: a scalable, general marker gene identification framework", BMC
    Bioinformatics 2022, random forest mode; Gregory et al. 2024, its use as a baseline.
    """

    summary: ClassVar[str] = "Gini importance of genes in a random forest (SMaSH)"
    reference: ClassVar[str] = "Nelson et al., BMC Bioinformatics 2022"

    def __init__(self, n_markers: int = 50, *, n_trees: int = 100, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.n_trees = n_trees
        self.seed = seed

    def check_params(self) -> None:
        """Raise one ``UserError`` that lists all parameters out of range."""
        if problems := count_problems(vars(self), ["n_trees"]):
            raise UserError(join_problems(problems))

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        forest = RandomForestClassifier(
            self.n_trees, class_weight="balanced", random_state=self.seed
        )
        importance = forest.fit(to_dense(X), y).feature_importances_
        return np.argsort(-importance, kind="stable"), importance
