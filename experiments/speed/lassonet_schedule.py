"""CPU time and accuracy of LassoNet: mmlab's schedule against that of the package lassonet.

    python experiments/speed/lassonet_schedule.py --dataset zeisel --repeats 1

The two schedules are measured alternately, with one thread, so that CPU time equals wall time on an
idle core. The package's defaults take about twenty minutes per repeat on zeisel.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

from mmlab.datasets import load_cells
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import paper_split
from mmlab.selectors import LassoNet
from mmlab.spec.trial import DataSpec
from mmlab.system.threads import limit_threads

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="zeisel")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--n-markers", type=int, default=50)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_lassonet.parquet"
    )
    options = parser.parse_args()
    cells = load_cells(DataSpec(name=options.dataset))
    rows = []
    for repeat in range(options.repeats):
        split = paper_split(cells.y, random_stream(0, repeat, Stream.SPLIT))
        layers = prepare_layers(cells.adata, cells.normalization, "train_only", split.train)
        x, y, fit_cells, test = layers["zscore"], cells.y, split.train_validation, split.test
        for faithful in (False, True):
            selector = LassoNet(options.n_markers, faithful=faithful, seed=repeat, device="cpu")
            started = time.process_time()
            with limit_threads(1):
                selector.fit(
                    x[split.train],
                    y[split.train],
                    X_val=x[split.validation],
                    y_val=y[split.validation],
                )
            seconds = time.process_time() - started
            panel = selector.panel_
            knn = KNeighborsClassifier().fit(x[fit_cells][:, panel], y[fit_cells])
            accuracy = knn.score(x[test][:, panel], y[test])
            name = "package defaults" if faithful else "mmlab"
            rows.append({"schedule": name, "seconds": seconds, "accuracy": accuracy})
            print(f"{name}: {seconds:.1f} CPU s, kNN accuracy {accuracy:.4f}", flush=True)
    table = pd.DataFrame(rows).assign(dataset=options.dataset)
    table.to_parquet(options.output)
    median = table.groupby("schedule")[["seconds", "accuracy"]].median()
    ratio = median.loc["mmlab", "seconds"] / median.loc["package defaults", "seconds"]
    gain = median.loc["mmlab", "accuracy"] - median.loc["package defaults", "accuracy"]
    print(f"median over {options.repeats}: {ratio:.3f} of the time, accuracy {np.round(gain, 4):+}")


if __name__ == "__main__":
    main()
