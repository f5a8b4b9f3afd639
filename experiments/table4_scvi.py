"""Table 4 of the paper: how well the cells of each type are rebuilt, by MarkerMap and by scVI.

    python experiments/table4_scvi.py --splits 3

Needs scVI: ``pip install --constraint constraints.txt '.[scvi]'``. All methods have the same
training, validation and test cells. Of a test cell each sees something else, and the tables say so:

- ``markermap_unsupervised`` and ``linear`` (regression on MarkerMap's panel, fitted on training
  and validation cells) see the z-scores of the panel's genes, and tell all the others from these;
- scVI sees the raw counts of all genes, those that it rebuilds among them, and the cell's total
  count. It chooses no genes; what it rebuilds has been through ten latent numbers. It is what a
  model could rebuild that measures everything, not a rival panel.

MarkerMap rebuilds a mean. The paper compared it with one posterior predictive sample of scVI,
which carries the noise of counts: ``scvi_sample``. Like for like is ``scvi_mean``, the mean of
the z-scores of a hundred such samples, of whose noise a hundredth is left. ``scvi_mean_counts`` is
the mean of their counts, then turned into z-scores: what denoising with scVI gives.

Every count goes through the normalization of its dataset, log1p and the training cells'
statistics, and everything is measured on two scales. ``gene``: mmlab's z-scores, a mean and a
standard deviation a gene. On it all genes vary alike over all cells, so over all cells (not
within a type) Jaccard index and rank correlation compare little but chance. ``matrix``: the
paper's, one mean and one standard deviation for the whole matrix, on which genes differ. The
paper compared the variances of scVI's sample on raw counts: of the sample, these stand as the
scale ``counts`` beside the others.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from table4_measures import ALL_CELLS, PUBLISHED, Matrix, Scale, markdown, measured

from mmlab.constraints.measure import resolve_constraints
from mmlab.datasets import DATASETS, load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.metrics.reconstruction import linear_reconstruction
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import Split, replicate_split
from mmlab.selectors.base import Selector
from mmlab.selectors.markermap import MarkerMapUnsupervised
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.files import atomic_write
from mmlab.system.threads import limit_threads
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.fit import make_selector, training_data

ROOT = Path(__file__).parents[1]
INSTALL = "pip install --constraint constraints.txt '.[scvi]'"
#: Posterior predictive samples that a mean is taken of.
N_SAMPLES = 100
#: Columns of the result.
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
    parser.add_argument("--epochs", type=at_least(1), help="of scVI; default: its own choice")
    parser.add_argument("--quick", action="store_true", help="MarkerMap as --quick trains it")
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/table4")
    options = parser.parse_args()
    try:
        trials = checked(options)
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
        made_by += f"; scVI had {options.epochs} epochs, its own choice is 400 up to 20000 cells"
    with atomic_write(options.output.with_suffix(".parquet")) as path:
        table.to_parquet(path)
    with atomic_write(options.output.with_suffix(".md")) as path:
        path.write_text(markdown(table, made_by))


def at_least(lowest: int) -> Callable[[str], int]:
    """A type of argparse: integers from ``lowest`` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {lowest}")
        return int(text)

    return number


def command(options: argparse.Namespace) -> str:
    """What makes the same table again."""
    words = ["python experiments/table4_scvi.py --datasets", *options.datasets]
    for name in ("splits", "seed", "n_markers", "epochs", "threads"):
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return " ".join(words + ["--quick"] * options.quick)


def checked(options: argparse.Namespace) -> list[tuple[TrialSpec, Cells]]:
    """MarkerMap's trial on each dataset, and its cells.

    Raises
    ------
    UserError
        Whatever keeps the table from being made, all at once, before any work is done.
    """
    problems, trials = [], []
    if find_spec("scvi") is None:
        problems.append(f"scVI is not installed: {INSTALL}")
    if not options.output.parent.is_dir():
        problems.append(f"--output: {options.output.parent} is not a folder")
    for name in options.datasets:
        try:
            trial = TrialSpec(
                data=DataSpec(name=name),
                selector="markermap_unsupervised",
                params=MarkerMapUnsupervised.quick if options.quick else {},
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
    """All methods on one split: a row a method, scale, type and measure."""
    split = replicate_split(trial, cells, replicate)
    layers = prepare_layers(cells.adata, cells.normalization, trial.recipe, split.train)
    z, truth = layers["zscore"], layers["zscore"][split.test]
    selector, n_epochs = fitted_markermap(trial, cells, layers, split, replicate)
    rebuilt: dict[str, Any] = {
        "markermap_unsupervised": selector.reconstruct(truth),
        "linear": linear_reconstruction(z[split.train_validation], truth, selector.panel_),
    }
    seed = int(random_stream(trial.seed, replicate, Stream.SELECTOR).integers(2**31))
    model, scale = fitted_scvi(cells, split, seed, epochs), Scale.of(cells, split.train)
    samples = posterior_samples(model, cells, split.test, N_SAMPLES)
    sample = next(samples)
    rebuilt |= rebuilt_by_scvi(chain([sample], samples), scale)
    trained = {"markermap_unsupervised": n_epochs}
    trained |= {name: len(model.history["elbo_train"]) for name in rebuilt if "scvi" in name}
    parts = []
    for method, own in rebuilt.items():
        pairs = {"matrix": (scale.paper(truth), scale.paper(own)), "gene": (truth, own)}
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
    """Unsupervised MarkerMap as the trial's replicate trains it, and its epochs."""
    selector = make_selector(trial, cells, replicate)
    data = training_data(selector, layers, cells.y, split, resolve_constraints(trial, cells, None))
    return selector, sum(1 for _ in selector.run(data))


def fitted_scvi(cells: Cells, split: Split, seed: int, epochs: int | None) -> Any:
    """scVI with its defaults on the raw counts of the training cells.

    The validation cells are its own: with the defaults they neither stop nor choose anything.
    """
    import scvi

    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = seed
    seen = cells.adata[split.train_validation].copy()
    scvi.model.SCVI.setup_anndata(seen)
    model = scvi.model.SCVI(seen)
    own = np.split(np.arange(seen.n_obs), [len(split.train)])
    with warnings.catch_warnings():
        # Lightning's own, of how it calls torch and of how little it logs.
        warnings.filterwarnings("ignore", module="lightning")
        model.train(
            max_epochs=epochs,
            datasplitter_kwargs={"external_indexing": own},
            enable_progress_bar=False,
        )
    return model


def posterior_samples(
    model: Any, cells: Cells, which: NDArray[np.int64], n_samples: int
) -> Iterator[sp.csr_matrix]:
    """Posterior predictive counts of some cells, one sample after the other."""
    judged = cells.adata[which].copy()
    for _ in range(n_samples):
        sample = model.posterior_predictive_sample(judged, n_samples=1)
        yield sp.csr_matrix(sample.to_scipy_sparse())


def rebuilt_by_scvi(samples: Iterable[sp.csr_matrix], scale: Scale) -> dict[str, Matrix]:
    """z-scores of the first sample, their mean over all, and those of the mean counts."""
    remaining = iter(samples)
    sample = next(remaining)
    first, n = scale.z_scores(sample), 1
    total, counts = first.astype(np.float64), sample.astype(np.float64)
    for sample in remaining:
        n, total, counts = n + 1, total + scale.z_scores(sample), counts + sample
    return {
        "scvi_sample": first,
        "scvi_mean": (total / n).astype(np.float32),
        "scvi_mean_counts": scale.z_scores(sp.csr_matrix(counts / n)),
    }


def progress(part: pd.DataFrame) -> str:
    """A split in one line."""
    shown = part[(part["cell_type"] == ALL_CELLS) & (part["scale"] == "matrix")]
    l2 = shown[shown["measure"] == "l2"].set_index("method")["value"]
    where = f"{part['dataset'].iloc[0]} split {part['split'].iloc[0]}: l2 "
    return where + ", ".join(f"{method} {value:.2f}" for method, value in l2.items())


if __name__ == "__main__":
    main()
