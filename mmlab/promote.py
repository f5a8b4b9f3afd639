"""From a search to a champion: judge its best on cells that it never saw, keep the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from rich.console import Console

from mmlab.compare import paired_tests
from mmlab.config import StudySpec, TrialSpec
from mmlab.datasets import load_cells
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.files import whole_file
from mmlab.grid import ComparisonSpec, MethodSpec
from mmlab.metrics.stability import nogueira_stability
from mmlab.model import fit_model
from mmlab.pipeline import final_objective, split_of
from mmlab.schedule import ComparisonResult, Resources, run_comparison
from mmlab.tracking import (
    Champion,
    Outcome,
    Store,
    StudyRun,
    TrialRecord,
    find_champion,
    open_study,
    record_promotion,
    trial_rows,
)

#: What a search's configurations are weighed by: metric of its trials, and the better direction.
OBJECTIVES = {
    "accuracy": ("validation/knn/accuracy", "max"),
    "reconstruction": ("validation/linear/l2", "min"),
    "stability": ("stability/nogueira", "max"),
    "panel_size": ("n_markers", "min"),
}
#: What stands beside the promoted configuration, with the selector's own defaults.
BASELINES = ("scanpy_t_test", "smash", "random")
#: Decides between a candidate and the champion, on the locked cells.
DECIDES = "knn/accuracy"
#: Configurations of a Pareto front that are judged, at most.
_MOST_CANDIDATES = 8


@dataclass(frozen=True)
class Promotion:
    """What a promotion has found.

    Attributes
    ----------
    study
        The search.
    candidates
        A row a configuration that was judged: digest, method, its objectives on validation cells.
    locked, paper
        Candidates, champion and baselines on the locked test cells, and on random splits of all
        cells as in the paper.
    method
        Title of the candidate that stood for promotion.
    previous
        The champion before, if there was one for these data and this panel size.
    champion
        The champion now.
    promoted
        Whether that is the candidate.
    verdict
        Why, in a sentence or two.
    run_id
        Of the promotion, below the search.
    """

    study: StudyRun[StudySpec]
    candidates: pd.DataFrame
    locked: ComparisonResult
    paper: ComparisonResult
    method: str
    previous: Champion | None
    champion: Champion
    promoted: bool
    verdict: str
    run_id: str


def promote(
    study_name: str,
    store: Store,
    resources: Resources,
    console: Console,
    *,
    objectives: Sequence[str] = (),
    baselines: Sequence[str] = BASELINES,
    replicates: int = 10,
    folder: Path = Path("experiments/promoted"),
    command: str = "",
) -> Promotion:
    """Judge the best configuration of a search, and make it the champion if it is better.

    Parameters
    ----------
    study_name
        A finished or interrupted search.
    objectives
        Names of :data:`OBJECTIVES`: all configurations of their Pareto front are judged; empty
        judges the one with the highest validation score. That one stands for promotion.
    baselines
        Selectors, with their defaults, that are judged beside it.
    replicates
        Random splits.
    folder
        Gets ``<dataset>.yaml``, the champion's benchmark under the paper's protocol.

    Raises
    ------
    UserError
        Unknown study or objective, a comparison instead of a search, no finished trial, or data
        that have changed.
    """
    found = open_study(store, study_name)
    if not isinstance(found.spec, StudySpec):
        raise UserError(
            f"study {found.name} is a {found.spec.study}: only a search (mmlab tune) has "
            "configurations to promote."
        )
    study = StudyRun(store, found.name, found.run_id, found.experiment_id, found.spec)
    cells = load_cells(study.spec.data)
    if cells.fingerprint != study.fingerprint():
        raise UserError(
            f"the data of study {study.name} have changed since the search: search again."
        )
    records = _finished(study)
    table = weigh(study, records, cells, objectives)
    candidates = _methods(study, records, table["digest"])
    before = find_champion(store, cells.name, study.spec.n_markers)
    previous = before if before and before.fingerprint == cells.fingerprint else None
    methods = _lineup(study, candidates, previous, baselines)
    results = {
        protocol: run_comparison(
            ComparisonSpec(
                data=study.spec.data,
                methods=methods,
                n_markers=[study.spec.n_markers],
                replicates=replicates,
                protocol=protocol,
                seed=study.spec.seed,
            ),
            store,
            resources,
            console,
            command=command,
        )
        for protocol in ("locked", "paper")
    }
    locked, paper = results["locked"], results["paper"]
    method = candidates[0]
    own = locked.rows.query("method == @method.title")
    if own.empty or locked.unsent:
        raise UserError(
            f"{method.title} could not be judged on the locked cells: "
            + ("; ".join(locked.failed.values()) or "the tracking store does not answer")
            + "."
        )
    better, verdict = decide(locked.rows, methods, method, previous)
    spec = locked.study.spec.trial(method, locked.study.spec.settings[0], 0)
    model = None
    if better:
        first = own.sort_values("replicate").iloc[0]
        about = {
            "dataset": cells.name,
            "fingerprint": cells.fingerprint,
            "selector": method.selector,
            "study": study.name,
            "locked_knn_accuracy": float(first[DECIDES]),
        }
        panel = np.asarray(first["panel"], dtype=np.int64)
        model = fit_model(panel, cells, split_of(spec, cells, 0), about)
    run_id, champion = record_promotion(
        study, [locked.study, paper.study], table, verdict, model, spec, str(own["digest"].iloc[0])
    )
    if better:
        write_study(paper.study.spec, folder, cells.name, verdict, command)
    now = champion or previous
    assert now is not None  # a candidate without a rival is better
    return Promotion(
        study, table, locked, paper, method.title, previous, now, better, verdict, run_id
    )


def weigh(
    study: StudyRun[StudySpec],
    records: Sequence[TrialRecord],
    cells: Cells,
    objectives: Sequence[str],
) -> pd.DataFrame:
    """The configurations to judge, best validation score first; see :func:`promote`."""
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown:
        raise UserError(
            f"objective {unknown[0]!r} is not among {', '.join(OBJECTIVES)}; give several "
            "separated by commas."
        )
    best = final_objective(study.spec.search.selector)
    rows = []
    for record in records:
        row: dict[str, Any] = {"digest": record.digest, "method": title_of(record)}
        row["score"] = record.metrics[best]
        for name in objectives:
            row[name] = _objective(study.store, record, name, len(cells.genes))
        rows.append(row | record.spec.params)
    table = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    if not objectives:
        return table.head(1).reset_index(drop=True)
    signs = [1.0 if OBJECTIVES[name][1] == "max" else -1.0 for name in objectives]
    values = table[list(objectives)].to_numpy(dtype=float) * signs
    front = table[pareto_front(values)]
    # The one that stands for promotion is judged whether or not the objectives hold its score.
    chosen = pd.concat([table.head(1), front]).drop_duplicates("digest")
    return chosen.head(_MOST_CANDIDATES).reset_index(drop=True)


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row beats: as good in every column (higher is better), better in one.

    NaN counts as the worst value.
    """
    known = np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    as_good = (known[:, None] >= known[None]).all(axis=2)
    better = (known[:, None] > known[None]).any(axis=2)
    return np.asarray(~(as_good & better).any(axis=0))


def _objective(store: Store, record: TrialRecord, name: str, n_genes: int) -> float:
    if name == "panel_size":
        return float(record.spec.n_markers)
    if name != "stability":
        return record.metrics[OBJECTIVES[name][0]]
    panels = [np.asarray(row["panel"]) for row in trial_rows(store, record.run_id)]
    if len(panels) < 2:
        raise UserError("objective stability needs a search with at least two replicates a trial.")
    return nogueira_stability(panels, n_genes).value


def decide(
    rows: pd.DataFrame, methods: Sequence[MethodSpec], method: MethodSpec, previous: Champion | None
) -> tuple[bool, str]:
    """Whether a candidate is better than the champion on the locked cells, and why.

    Parameters
    ----------
    rows
        A row a replicate and method, of the locked protocol.
    methods
        All that were judged; the champion is among them.
    method
        The candidate.
    """
    means = rows.groupby("method", sort=False)[DECIDES].mean()
    own = means[method.title]
    score = f"{method.title} has kNN accuracy {own:.4f} on the locked cells"
    above = means[means > own].sort_values(ascending=False)
    listed = ", ".join(f"{name} {value:.4f}" for name, value in above.items())
    ahead = f" Ahead of it: {listed}." if len(above) else ""
    if previous is None:
        return True, f"{score}; there was no champion before.{ahead}"
    rival = next(m for m in methods if _same(m, previous.spec))
    if rival is method:
        return False, f"{score}; it is the champion already.{ahead}"
    both = rows[rows["method"].isin([method.title, rival.title])]
    (test,) = paired_tests(both, DECIDES, rival.title).to_dict(orient="records")
    difference, p = float(test["mean_difference"]), float(test["t_p"])
    sure = "" if np.isnan(p) else f", p = {p:.2g} (corrected resampled t-test)"
    verdict = (
        f"{score}, {difference:+.4f} against the champion {rival.title} over {test['n']} "
        f"replicates{sure}.{ahead}"
    )
    return difference > 0, verdict


def title_of(record: TrialRecord) -> str:
    """Name of a search's configuration in tables."""
    return f"{record.selector} {record.digest[:8]}"


def _finished(study: StudyRun[StudySpec]) -> list[TrialRecord]:
    """Searched trials that ran to their end."""
    selector = study.spec.search.selector
    found = [
        record
        for record in study.trials()
        if record.selector == selector and record.outcome == Outcome.COMPLETE
    ]
    if not found:
        raise UserError(f"no trial of study {study.name} ran to its end: nothing to promote.")
    return found


def _methods(
    study: StudyRun[StudySpec], records: Sequence[TrialRecord], digests: pd.Series
) -> list[MethodSpec]:
    by_digest = {record.digest: record for record in records}
    chosen = [by_digest[str(digest)] for digest in digests]
    return [
        MethodSpec(selector=r.selector, params=r.spec.params, label=title_of(r)) for r in chosen
    ]


def _lineup(
    study: StudyRun[StudySpec],
    candidates: Sequence[MethodSpec],
    champion: Champion | None,
    baselines: Sequence[str],
) -> list[MethodSpec]:
    """All that are judged: candidates, the champion, the selector's defaults, baselines."""
    lineup = list(candidates)
    if champion is not None and not any(_same(m, champion.spec) for m in lineup):
        label = f"{champion.spec.selector} {champion.digest[:8]} (champion)"
        spec = champion.spec
        lineup.append(MethodSpec(selector=spec.selector, params=spec.params, label=label))
    selector = study.spec.search.selector
    lineup.append(MethodSpec(selector=selector, label=f"{selector} (default)"))
    return lineup + [MethodSpec(selector=name) for name in baselines]


def _same(method: MethodSpec, spec: TrialSpec) -> bool:
    return method.selector == spec.selector and method.params == spec.params


def write_study(
    spec: ComparisonSpec, folder: Path, dataset: str, verdict: str, command: str
) -> Path:
    """Write a comparison as a study file that ``mmlab run`` takes; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    content = spec.model_dump(mode="json", exclude_defaults=True)
    lines = [
        f"# The champion of {dataset}, first of the methods, under the paper's protocol.",
        f"# {verdict}",
        f"#   {command}",
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
    ]
    path = folder / f"{dataset}.yaml"
    with whole_file(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return path
