"""Question, answer and limitations of a comparison, as sentences of its report."""

from __future__ import annotations

from mmlab.comparison.tables import best_method, competing_methods
from mmlab.schedule import ComparisonResult
from mmlab.selectors import control_methods
from mmlab.spec.comparison import NOISE_AXIS, SIZE_AXIS, ComparisonSpec

#: Metric by which the report ranks methods.
HEADLINE_METRIC = "knn/accuracy"
#: With fewer replicates, the report warns about standard deviations and tests.
_FEW_REPLICATES = 5


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


def comparison_answer(result: ComparisonResult, best: str) -> list[str]:
    """Return the answer, in one or two sentences; ``best`` is from :func:`leading_method`."""
    spec, summary = result.study.spec, result.summary
    first = spec.settings[0].name
    at_first = (summary["setting"] == first) & (summary["metric"] == HEADLINE_METRIC)
    row = summary[at_first & (summary["method"] == best)].iloc[0]
    where = "the held-out test set" if spec.protocol == "locked" else "test cells"
    text = [
        f"{best} has the highest kNN accuracy at {first}: {row['mean']:.3f} ± {row['std']:.3f} on "
        f"{where} (mean ± standard deviation, {int(row['n'])} replicates)."
    ]
    competing = competing_methods(result.replicates, control_methods())
    if competing and competing != set(result.replicates["method"]):
        text[0] += " Controls are not ranked."
    if spec.axis == NOISE_AXIS and len(result.robustness):
        areas = result.robustness[result.robustness["metric"] == HEADLINE_METRIC]
        top = areas.sort_values("auc", ascending=False).iloc[0]
        text.append(
            f"Over all noise levels, {top['method']} has the highest mean kNN accuracy (normalised "
            f"area under the curve), {top['auc']:.3f}."
        )
    return text


def leading_method(result: ComparisonResult) -> str:
    """Return the method with the highest mean kNN accuracy at the first setting.

    Controls are left out, unless nothing else was compared.
    """
    competing = competing_methods(result.replicates, control_methods())
    first = result.study.spec.settings[0]
    at_first = result.summary[result.summary["setting"] == first.name]
    among = competing or set(result.replicates["method"])
    best = best_method(at_first, HEADLINE_METRIC, int(at_first["n_markers"].iloc[0]), among)
    assert best is not None  # every finished trial has this metric
    return best


def comparison_limitations(result: ComparisonResult) -> list[str]:
    """Return the limitations of a comparison, one paragraph each."""
    points = []
    if result.summary["n"].min() < _FEW_REPLICATES:
        points.append(
            f"Some methods have fewer than {_FEW_REPLICATES} replicates: their standard "
            "deviations and tests are unreliable."
        )
    if result.replicates.groupby("method").size().nunique() > 1:
        points.append(
            "The number of replicates differs between methods, so their means are over different "
            "splits. Only the paired tests compare methods on the same splits."
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
