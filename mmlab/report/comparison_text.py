"""Question, answer and limitations of a comparison, as sentences of its report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmlab.comparison.significance import (
    FEW_REPLICATES,
    SIGNIFICANCE,
    gains,
    indistinguishable,
    reference_method,
)
from mmlab.comparison.tables import describe_spread
from mmlab.schedule.comparison_plan import ComparisonResult
from mmlab.selectors import control_methods
from mmlab.spec.comparison import NOISE_AXIS, SIZE_AXIS, ComparisonSpec

#: Metric by which the report ranks methods.
HEADLINE_METRIC = "knn/accuracy"


def comparison_question(spec: ComparisonSpec) -> str:
    """Return the question that a comparison answers."""
    name, k = spec.data.title, spec.n_markers[0]
    if spec.axis == NOISE_AXIS:
        return f"How much does label noise reduce the accuracy of panels of {k} genes on {name}?"
    if spec.axis != SIZE_AXIS:
        return f"How does {spec.axis} affect panels of {k} genes on {name}?"
    if len(spec.settings) > 1:
        return f"How many genes does a panel for {name} need, and which method selects the best?"
    where = ", evaluated on the held-out test set" if spec.protocol == "locked" else ""
    return f"Which method selects the best panel of {k} genes for {name}{where}?"


def comparison_answer(result: ComparisonResult, tests: pd.DataFrame, best: str) -> list[str]:
    """Return the answer, in a few sentences.

    Parameters
    ----------
    tests
        From :func:`mmlab.comparison.significance.reference_tests`.
    best
        From :func:`leading_method`.
    """
    spec, summary = result.study.spec, result.summary
    first = spec.settings[0].name
    at_first = (summary["setting"] == first) & (summary["metric"] == HEADLINE_METRIC)
    row = summary[at_first & (summary["method"] == best)].iloc[0]
    where = "the held-out test set" if spec.protocol == "locked" else "test cells"
    value, meaning = f"{row['mean']:.3f}", "1 replicate"
    if np.isfinite(row["std"]):
        value += f" ± {row['std']:.3f}"
        meaning = f"mean ± {describe_spread(spec.protocol, int(row['n']))}"
    text = [
        f"{best} has the highest kNN accuracy at {first} of the methods with all replicates: "
        f"{value} on {where} ({meaning})."
    ]
    if _competing(result.replicates)["method"].nunique() < result.replicates["method"].nunique():
        text[0] += " Controls are not ranked."
    if len(tests):
        shown = tests[(tests["setting"] == first) & (tests["metric"] == HEADLINE_METRIC)]
        text.append(_tests_sentence(shown))
    if spec.axis == NOISE_AXIS and len(result.robustness):
        text.append(_area_sentence(result))
    return text


#: Why there is no test, or none that counts.
_UNTESTED = "too few common replicates, or the same difference in all"


def _tests_sentence(tests: pd.DataFrame) -> str:
    """Return which methods cannot be distinguished from the best one, and which are untested."""
    tested = tests.dropna(subset=["p_holm"])
    if tested.empty:
        return f"No method could be tested against it ({_UNTESTED})."
    test = f"({tested['test'].iloc[0]} with Holm's correction)"
    ties, significant = indistinguishable(tested), tested["p_holm"] < SIGNIFICANCE
    better = significant & (gains(tested) > 0)
    unknown = pd.concat([tests[tests["p_holm"].isna()], tested[~ties & ~significant]])["method"]
    text = []
    for methods, meaning in [
        (tested.loc[better, "method"], f"Significantly better on fewer replicates {test}"),
        (tested.loc[ties, "method"], f"Not distinguishable from it {test}"),
        (unknown, f"Not decided ({_UNTESTED})"),
    ]:
        text += [f"{meaning}: {', '.join(methods)}."] if len(methods) else []
    return " ".join(text) or f"All other methods are significantly worse {test}."


def _area_sentence(result: ComparisonResult) -> str:
    """Return which of the methods with all replicates has the largest area under the curve."""
    competing = set(_competing(result.replicates)["method"]) or set(result.replicates["method"])
    areas = result.robustness[result.robustness["metric"] == HEADLINE_METRIC]
    areas = areas[areas["method"].isin(competing)]
    top = areas[areas["n"] == areas["n"].max()].sort_values("auc", ascending=False).iloc[0]
    interval = ""
    if np.isfinite(top["auc_low"]):
        interval = f" (95 % confidence interval {top['auc_low']:.3f} to {top['auc_high']:.3f})"
    return (
        f"Over all noise levels, {top['method']} has the highest mean kNN accuracy (normalised "
        f"area under the curve) of the methods with all replicates, {top['auc']:.3f}{interval}."
    )


def _competing(replicates: pd.DataFrame) -> pd.DataFrame:
    """Return the finished replicates of methods that are not controls."""
    return replicates[~replicates["selector"].isin(control_methods())]


def leading_method(result: ComparisonResult) -> str:
    """Return the best of the methods that have all replicates at the first setting.

    It is the reference of the paired tests of kNN accuracy. Controls are left out, unless nothing
    else was compared.
    """
    replicates = result.replicates
    at_first = replicates[replicates["setting"] == result.study.spec.settings[0].name]
    competing = _competing(at_first)
    best = reference_method(competing if len(competing) else at_first, HEADLINE_METRIC)
    assert best is not None  # every finished trial has this metric
    return best


def comparison_limitations(result: ComparisonResult) -> list[str]:
    """Return the limitations of a comparison, one paragraph each."""
    points = []
    if result.summary["n"].min() < FEW_REPLICATES:
        points.append(
            f"Some methods have fewer than {FEW_REPLICATES} replicates: their standard "
            "deviations and tests are unreliable."
        )
    if result.replicates.groupby("method").size().nunique() > 1:
        points.append(
            "The number of replicates differs between methods, so their means are over different "
            "splits. Only the paired tests, which also decide what is bold, compare methods on the "
            "same splits."
        )
    if result.study.spec.protocol == "paper":
        points.append(
            "The best method is selected and evaluated on the same replicates, which biases its "
            "result slightly upwards."
        )
    else:
        points.append(
            "Only the held-out test set is unseen: most test cells of the random splits were part "
            "of the search. Every further promotion uses the same held-out test set again."
        )
    return points
