"""Score of a panel on the validation cells, for early stopping and for searches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import ThreadpoolController

from mmlab.errors import UserError
from mmlab.metrics.classification import accuracy
from mmlab.metrics.reconstruction import explained_variance, linear_reconstruction
from mmlab.preprocessing.expression import Expression, to_dense
from mmlab.preprocessing.splits import subsample
from mmlab.selectors.training_data import TrainingData, labels_or_zeros
from mmlab.spec.protocol import MAX_EVALUATION_CELLS, MAX_FIT_CELLS

if TYPE_CHECKING:
    from mmlab.nn.training import PanelScore


def validation_score(data: TrainingData, *, supervised: bool) -> PanelScore | None:
    """Return the function that scores a panel on the validation cells; None without such cells.

    With labels the score is the accuracy of a 5-nearest-neighbour classifier on the panel genes,
    otherwise the share of the variance of all genes that a linear regression on the panel genes
    explains. Both are fitted on the training cells; higher is better, 1 is perfect. Of large
    data a random sample is used.

    Parameters
    ----------
    data
        Training and validation cells, z-scores.
    supervised
        Whether the labels are used.
    """
    if data.x_val is None:
        return None
    fit_on = subsample(len(data.x), MAX_FIT_CELLS)
    evaluate_on = subsample(len(data.x_val), MAX_EVALUATION_CELLS)
    x = data.x[fit_on] if isinstance(data.x, Expression) else to_dense(data.x)[fit_on]
    x_val = to_dense(data.x_val[evaluate_on])
    y = labels_or_zeros(data.x, data.y)[fit_on]
    y_val = labels_or_zeros(data.x_val, data.y_val)[evaluate_on]

    def knn_accuracy(panel: NDArray[np.int64]) -> float:
        classifier = KNeighborsClassifier().fit(to_dense(x[:, panel]), y)
        return accuracy(y_val, classifier.predict(x_val[:, panel]))

    def variance_explained(panel: NDArray[np.int64]) -> float:
        explained = explained_variance(x_val, linear_reconstruction(x, x_val, panel))
        if math.isnan(explained):
            raise UserError(
                f"no gene varies over the {len(x_val)} validation cells, so they cannot score a "
                "panel: more cells are needed, or a method that uses labels."
            )
        return explained

    # BLAS threads keep spinning after a call and would take cores from the threads of torch.
    one_thread = ThreadpoolController().wrap(limits=1, user_api="blas")
    wrapped: PanelScore = one_thread(knn_accuracy if supervised else variance_explained)
    return wrapped
