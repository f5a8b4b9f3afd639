"""Table 4 of the paper: reconstruction of the cells of each type by MarkerMap and by scVI.

    python experiments/table4_scvi.py --splits 3

Needs scVI: ``pip install --constraint constraints.txt '.[scvi]'``. All methods have the same
training, validation and test cells. They see different inputs of a test cell, which the column
``sees`` names:

- ``markermap_unsupervised`` and ``linear`` (regression on MarkerMap's panel, fitted on training
  and validation cells) see the z-scores of the panel's genes, and predict all other genes;
- scVI sees the raw counts of all genes, including those that it reconstructs, and the cell's total
  count. It selects no genes; its reconstruction passes through ten latent variables. It shows what
  a model can reconstruct that measures all genes; it does not compete as a panel.

The reconstruction of MarkerMap is a mean. The paper compared it with one posterior predictive
sample of scVI, which includes the noise of the counts: ``scvi_sample``. The fair comparison is
``scvi_mean``, the mean of the z-scores of a hundred such samples, with a hundredth of the variance
of the noise. ``scvi_mean_counts`` is the z-scores of the mean of their counts: the result of
denoising with scVI.

All counts are transformed by the normalization of their dataset, log1p and the statistics of the
training cells, and all measures are computed on two scales. ``gene`` is mmlab's z-scores: one mean
and standard deviation per gene. On this scale all genes have the same variance over all cells, so
the Jaccard index and the rank correlation over all cells (not within a type) are little more than
chance. ``matrix`` is the paper's scale: one mean and standard deviation for the whole matrix, so
that the variances of genes differ. The paper compared the variances of scVI's sample on raw counts;
for the sample, these are given in addition as the scale ``counts``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, product
from pathlib import Path
from typing import Any

import pandas as pd
from table4_measures import ALL_CELLS, PUBLISHED, Scale, markdown, measured
from table4_scvi_model import fitted_scvi, posterior_samples, reconstructed_by_scvi

from mmlab.constraints.measure import resolve_constraints
from mmlab.datasets import DATASETS, count_cells, load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.metrics.reconstruction import linear_reconstruction
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import Split, n_training_cells, replicate_split
from mmlab.selectors import quick_params
from mmlab.selectors.base import Selector
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.files import atomic_write
from mmlab.system.threads import limit_threads
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.fit_inputs import make_selector, training_data

ROOT = Path(__file__).parents[1]
INSTALL = "pip install --constraint constraints.txt '.[scvi]'"
#: Posterior predictive samples per mean.
N_SAMPLES = 100
#: Columns of the result table.
SCHEMA = (
    *("dataset", "split", "method", "sees", "epochs"),
    *("scale", "cell_type", "n_cells", "measure", "value"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [name for name in ("zeisel", "citeseq", PUBLISHED) if name in DATASETS]
    parser.add_argument("--datasets", nargs="+", default=known)
    parser.add_argument("--splits", type=at_least(1), default=3)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--n-markers", type=at_least(1), default=50)
    parser.add_argument(
        "--epochs", type=at_least(1), help="epochs of scVI; default: chosen by scVI"
    )
    parser.add_argument("--quick", action="store_true", help="train MarkerMap as --quick does")
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/table4")
    options = parser.parse_args()
    try:
        trials = checked_trials(options)
    except UserError as error:
        parser.error(str(error))
    rows = []
    with limit_threads(options.threads):
        for (trial, cells), split in product(trials, range(options.splits)):
            rows.append(measure_split(trial, cells, split, options.epochs))
            print(progress(rows[-1]), flush=True)
    table = pd.concat(rows, ignore_index=True)
    made_by = f"`{command(options)}` with scvi-tools {version('scvi-tools')}"
    if options.epochs is not None:
        made_by += f"; scVI trained for {options.epochs} epochs (default: 400 up to 20000 cells)"
    with atomic_write(options.output.with_suffix(".parquet")) as path:
        table.to_parquet(path)
    with atomic_write(options.output.with_suffix(".md")) as path:
        path.write_text(markdown(table, made_by))


def at_least(lowest: int) -> Callable[[str], int]:
    """Return an argparse type: integers of at least ``lowest``."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {lowest}")
        return int(text)

    return number


def command(options: argparse.Namespace) -> str:
    """Return the command that makes the same table again."""
    words = ["python experiments/table4_scvi.py --datasets", *options.datasets]
    for name in ("splits", "seed", "n_markers", "epochs", "threads"):
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return " ".join(words + ["--quick"] * options.quick)


def checked_trials(options: argparse.Namespace) -> list[tuple[TrialSpec, Cells]]:
    """Return MarkerMap's trial on each dataset, with the cells of the dataset.

    Raises
    ------
    UserError
        With all problems in one message: scVI missing, no output folder, datasets or parameters
        that are not valid.
    """
    problems, trials = [], []
    if find_spec("scvi") is None:
        problems.append(f"scVI is not installed: {INSTALL}")
    if not options.output.parent.is_dir():
        problems.append(f"--output: {options.output.parent} is not a folder")
    for name in options.datasets:
        try:
            data, selector = DataSpec(name=name), "markermap_unsupervised"
            quick = quick_params(selector, n_training_cells(count_cells(data)))
            trial = TrialSpec(
                data=data,
                selector=selector,
                params=quick if options.quick else {},
                n_markers=options.n_markers,
                seed=options.seed,
            )
            cells = load_cells(trial.data)
            trials.append((resolve_spec(trial, cells), cells))
        except UserError as error:
            problems.append(str(error).rstrip("."))
    if problems:
        raise UserError("; ".join(problems))
    return trials


def measure_split(
    trial: TrialSpec, cells: Cells, replicate: int, epochs: int | None
) -> pd.DataFrame:
    """Evaluate all methods on one split: one row per method, scale, type and measure."""
    split = replicate_split(trial, cells, replicate)
    layers = prepare_layers(cells.adata, cells.normalization, trial.recipe, split.train)
    z, truth = layers["zscore"], layers["zscore"][split.test]
    selector, n_epochs = fitted_markermap(trial, cells, layers, split, replicate)
    reconstructed: dict[str, Any] = {
        "markermap_unsupervised": selector.reconstruct(truth),
        "linear": linear_reconstruction(z[split.train_validation], truth, selector.panel_),
    }
    seed = int(random_stream(trial.seed, replicate, Stream.SELECTOR).integers(2**31))
    model, scale = fitted_scvi(cells, split, seed, epochs), Scale.of(cells, split.train)
    samples = posterior_samples(model, cells, split.test, N_SAMPLES)
    sample = next(samples)
    reconstructed |= reconstructed_by_scvi(chain([sample], samples), scale)
    trained = {"markermap_unsupervised": n_epochs}
    trained |= {name: len(model.history["elbo_train"]) for name in reconstructed if "scvi" in name}
    parts = []
    for method, values in reconstructed.items():
        pairs = {"matrix": (scale.paper(truth), scale.paper(values)), "gene": (truth, values)}
        if method == "scvi_sample":
            counts = layers["counts"][split.test]
            pairs["counts"] = counts.toarray(), sample.toarray()
        part = measured(pairs, cells.y[split.test], cells.classes)
        sees = "all genes" if "scvi" in method else f"{trial.n_markers} genes"
        parts.append(part.assign(method=method, sees=sees, epochs=trained.get(method)))
    table = pd.concat(parts, ignore_index=True).astype({"epochs": "Int64"})
    return table.assign(dataset=cells.name, split=replicate)[list(SCHEMA)]


def fitted_markermap(
    trial: TrialSpec, cells: Cells, layers: Any, split: Split, replicate: int
) -> tuple[Selector, int]:
    """Train unsupervised MarkerMap as in a replicate of the trial; return it and its epochs."""
    selector = make_selector(trial, cells, replicate)
    data = training_data(selector, layers, cells.y, split, resolve_constraints(trial, cells, None))
    return selector, sum(1 for _ in selector.run(data))


def progress(part: pd.DataFrame) -> str:
    """Return the line that reports a finished split."""
    shown = part[(part["cell_type"] == ALL_CELLS) & (part["scale"] == "matrix")]
    l2 = shown[shown["measure"] == "l2"].set_index("method")["value"]
    where = f"{part['dataset'].iloc[0]} split {part['split'].iloc[0]}: l2 "
    return where + ", ".join(f"{method} {value:.2f}" for method, value in l2.items())


if __name__ == "__main__":
    main()
