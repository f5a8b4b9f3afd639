"""Training on the GPU on real cells, against the shipped results of the CPU."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

from mmlab.comparison.paired_tests import corrected_resampled_t_test
from mmlab.datasets import load_cells
from mmlab.preprocessing.expression import to_dense
from mmlab.spec.base import canonical_json
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.batched_fit import run_fits
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.replicate import PreparedReplicate
from mmlab.trial.run import Trial, prepare_replicate

from .harness import ROOT, Check

RESULTS = ROOT / "experiments" / "results" / "zeisel.parquet"
METHODS = ("markermap_supervised", "markermap_joint", "markermap_unsupervised")


def real_cells(check: Check) -> dict[str, Any]:
    """Train MarkerMap with default parameters on the splits of zeisel, as one batch per method.

    The random numbers of CPU and GPU differ, so accuracies are compared over the splits that
    both have: mean difference, and p of the corrected resampled t-test.
    """
    shipped = pd.read_parquet(RESULTS)
    shipped = shipped[shipped["seed"] == 0]
    n = 2 if check.small else 10
    params: dict[str, Any] = {"max_epochs": 2, "min_epochs": 2} if check.small else {}
    result: dict[str, Any] = {"ok": True}
    for method in METHODS:
        spec = TrialSpec(data=DataSpec(name="zeisel"), selector=method, params=params, replicates=n)
        trial = Trial(spec, load_cells(spec.data))
        trial.check_constraints()
        replicates = [
            prepare_replicate(trial.spec, trial.cells, trial.panel_constraints[i], i)
            for i in range(n)
        ]
        for replicate in replicates:
            replicate.fit.selector.set_params(device=check.device)
        started = time.perf_counter()
        for _ in run_fits([replicate.fit for replicate in replicates]):
            pass
        seconds = time.perf_counter() - started
        accuracy = pd.Series([knn_accuracy(replicate) for replicate in replicates])
        default = resolve_spec(spec.model_copy(update={"params": {}}), trial.cells).params
        on_cpu = (shipped["selector"] == method) & (shipped["params"] == canonical_json(default))
        cpu = shipped[on_cpu].set_index("replicate")["knn/accuracy"]
        difference = (accuracy - cpu).dropna().to_numpy()
        p = corrected_resampled_t_test(difference)[1]
        result["ok"] &= check.small or bool(p > 0.01)
        result[method] = {
            "n_models": n,
            "fit_s": seconds,
            "knn_accuracy": accuracy.tolist(),
            "mean_knn_accuracy": accuracy.mean(),
            "n_compared": len(difference),
            "mean_difference_to_cpu": difference.mean(),
            "p": p,
        }
    return result


def knn_accuracy(replicate: PreparedReplicate) -> float:
    """Return the accuracy of the benchmark's k-NN classifier on the test cells."""
    panel, split = replicate.fit.selector.panel_, replicate.split
    train = to_dense(replicate.zscore[split.train_validation])[:, panel]
    test = to_dense(replicate.zscore[split.test])[:, panel]
    classifier = KNeighborsClassifier().fit(train, replicate.labels[split.train_validation])
    return float(classifier.score(test, replicate.cells.y[split.test]))
