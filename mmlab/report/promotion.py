"""Section and comparisons of the promotion of a search."""

from __future__ import annotations

from typing import Any

from mmlab.datasets.cells import Cells
from mmlab.report.page import Section
from mmlab.schedule.comparison_plan import ComparisonResult, read_comparison
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.search import SearchSpec
from mmlab.tracking import StudyRun, find_promotions, find_study

_RULE = (
    "The best trial of the search and the default configuration of the method compete with the "
    "champion, or with the default configuration if there was no champion. A challenger takes the "
    "title only if its kNN accuracy on the held-out test set is significantly higher: p < 0.05 in "
    "a paired test over the test cells, with Holm's correction for the number of challengers. A "
    "smaller difference is a tie, and the incumbent stays. Other methods do not compete. The panel "
    "in this report is the consensus panel of the champion."
)


def promotion_section(promotion: dict[str, Any]) -> Section:
    """Return the section on a promotion from :func:`mmlab.tracking.find_promotions`.

    Its first line is the headline. The rule is left out for promotions by older versions of mmlab,
    which had another one and did not record the winner.
    """
    rule = [_RULE] if promotion["winner"] else []
    return Section("Promotion", [*promotion["verdict"].splitlines(), *rule])


def last_promotion(
    study: StudyRun[SearchSpec], cells: Cells
) -> tuple[dict[str, Any] | None, list[ComparisonResult]]:
    """Return the last promotion of a search and its comparisons, first on the held-out test set.

    None and no comparisons if there is no promotion, or if its trials were computed under another
    protocol number of mmlab: they are not the trials that the comparisons have now.
    """
    promotions = find_promotions(study)
    if not promotions:
        return None, []
    results = []
    for name in promotions[-1]["comparisons"]:
        found = find_study(study.store, name)
        if found is not None and isinstance(found.spec, ComparisonSpec):
            results.append(read_comparison(found.with_spec(found.spec), cells))
    if not results or any(result.replicates.empty for result in results):
        return None, []
    return promotions[-1], results
