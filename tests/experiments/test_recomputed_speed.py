"""Times and memory of the README, recomputed from the stored measurements.

As in ``test_recomputed_numbers.py``, neither mmlab nor the scripts that measure are imported.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
from printed import RESULTS, ROOT, Comparison, prose, readme, table_with, to_number
from recomputed import (
    dataset_sizes,
    load_study,
    n_test_cells,
    published,
    resampled_t_test,
    study_of_dataset,
)


def measured(name: str) -> pd.DataFrame:
    return pd.read_parquet(RESULTS / f"speed_{name}.parquet")


def number(text: str) -> str:
    """Return the number that a text begins with, without its unit."""
    return text.partition(" ")[0]


def test_training_from_disk() -> None:
    table = table_with(readme(), "counts on disk")
    rows = measured("out_of_core").set_index("cells")
    (n_genes,) = prose("Measured on simulated cells x {} genes, supervised MarkerMap")
    with Comparison("README, training from disk") as compare:
        compare.equal("cells", [to_number(row[0]) for row in table.rows], [*rows.index])
        for (n_cells, row), (_, *printed) in zip(rows.iterrows(), table.rows, strict=True):
            values = {
                "counts": row["counts_mb"] / 2**10,
                "z-scores": int(str(n_cells)) * to_number(n_genes) * 4 / 2**30,
                "memory": row["peak_memory_mb"] / 2**10,
                "time per epoch": row["seconds_an_epoch"],
                "speed": row["ms_a_batch_anndata"] / row["ms_a_batch"],
            }
            for (title, value), text in zip(values.items(), printed, strict=True):
                compare.number(f"{n_cells} cells, {title}", number(text), value)
            compare.number("genes", n_genes, row["dense_mb"] * 2**20 / 4 / int(str(n_cells)))


def test_sizes_of_the_largest_dataset() -> None:
    *sizes, n_test = prose(
        """trained as a simulated dataset of its size ({} x {}, {} types; `mmlab select --dataset
        mouse_brain_all_genes_simulated --quick`): 66 s per epoch on one thread of a busy machine,
        in 1.6 GB; the evaluation, which holds {} test cells"""
    )
    expected = dataset_sizes()["mouse_brain_all_genes"]
    with Comparison("README, mouse brain without a gene filter") as compare:
        for text, value in zip(sizes, expected, strict=True):
            compare.number("size", text, value)
        compare.number("test cells", n_test, n_test_cells(expected[0]))


def test_times_against_markermap() -> None:
    table = table_with(readme(), "`mmlab` default")
    rows = measured("reference")
    (n_splits,) = prose("interleaved on the same {} splits, 50 markers")
    with Comparison("README, markermap and mmlab") as compare:
        compare.equal("rows", len(table.rows), rows.groupby(["dataset", "mode"]).ngroups)
        for name, *printed in table.rows:
            found = re.fullmatch(r"`(\w+)` (\w+)", name)
            assert found, name
            for i, package in enumerate(["markermap", "mmlab"]):
                part = rows[(rows["dataset"] == found[1]) & (rows["mode"] == found[2])]
                part = part[part["rival"] == package]
                seconds, accuracy = part["seconds"].median(), part["accuracy"].mean()
                compare.number(f"{name}, seconds of {package}", number(printed[2 * i]), seconds)
                compare.number(f"{name}, kNN of {package}", printed[2 * i + 1], accuracy)
                compare.number(f"{name}, splits of {package}", n_splits, part["split"].nunique())


def test_sentence_about_the_published_training() -> None:
    joint, above, unsupervised = prose(
        """the joint mode has {} here and in the package `markermap` itself (see Speed), {} above
        the published row, and the unsupervised mode {} in both."""
    )
    study = load_study(ROOT / "experiments" / "faithful_zeisel.yaml")
    package = measured("reference").query("dataset == 'zeisel' and rival == 'markermap'")
    with Comparison("README, published training") as compare:
        for mode, text in (("joint", joint), ("unsupervised", unsupervised)):
            selector = f"markermap_{mode}"
            own = study.rows[f"{selector} (faithful)"]["knn/accuracy"].mean()
            compare.number(f"{mode}, here", text, own)
            theirs = package[package["mode"] == mode]["accuracy"].mean()
            compare.number(f"{mode}, in the package", text, theirs)
            if mode == "joint":
                reported = published(selector, "zeisel", "knn/accuracy")
                assert reported is not None
                compare.number("joint, above the published row", above, own - reported)


def test_overhead() -> None:
    table = table_with(readme(), "overhead of scheduling and tracking")
    (scheduling,), (study,) = (
        measured(name).to_dict("records") for name in ("scheduling", "large_study")
    )
    overhead = scheduling["search_seconds"] - scheduling["pool_seconds"]
    overhead *= scheduling["processes"] / scheduling["trials"]
    printed = {row[0].partition(",")[0]: row[1] for row in table.rows}
    options = r"(\d+) trials, .* --dataset (\w+) --trials (\d+) --epochs (\d+)`"
    found = re.search(options, table.rows[0][0])
    assert found
    names = ("trials", "dataset", "trials", "epochs")
    with Comparison("README, overhead") as compare:
        for name, text in zip(names, found.groups(), strict=True):
            compare.equal(name, text, str(scheduling[name]))
        compare.number("per trial", number(printed["Ray"]), overhead)
        pages = printed[f"a study of {study['trials']} trials: MLflow's first page of its runs"]
        first, own = re.findall(r"([\d.]+) s", pages)
        compare.number("page of runs", first, study["runs_page_seconds"])
        compare.number("page of the study", own, study["study_page_seconds"])
        report = printed["`mmlab report` of that study"]
        compare.number("report", number(report), study["report_seconds"])


def test_growth() -> None:
    table = table_with(readme(), "CPU time")
    names = {"panel size": "n_markers", "hidden size": "hidden_size"}
    medians = measured("growth").groupby(["axis", "factor"])[["seconds", "memory_mb"]].median()
    with Comparison("README, growth") as compare:
        compare.equal("rows", len(table.rows), medians.index.get_level_values(0).nunique())
        for name, *printed in table.rows:
            of_axis = medians.loc[names.get(name, name)]
            for (column, value), text in zip(
                (of_axis.loc[4.0] / of_axis.loc[1.0]).items(), printed, strict=True
            ):
                compare.number(f"{name}, {column}", text, value)


def test_time_ratios() -> None:
    table = table_with(readme(), "time ratio")
    packed = pd.concat([measured("packed"), measured("packed_zeisel")])
    medians = packed.groupby(["dataset", "models", "how"])["seconds"].median()
    dataset = ""
    with Comparison("README, time ratios") as compare:
        for name, _, printed in table.rows:
            if name.startswith("LassoNet"):
                rows = measured("lassonet").groupby("schedule")["seconds"].median()
                compare.number(name, printed, rows["mmlab"] / rows["package defaults"])
                continue
            found = re.search(r"`(\w+)`", name)
            dataset = found[1] if found else dataset
            seconds = medians.loc[dataset, int(number(name))]
            ratio = seconds["packed"] / seconds["one by one"]
            compare.number(f"{name}, {dataset}", printed, ratio)


def gpu_checks() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("gpu_check_h100_*.json"))]


def test_training_on_a_gpu() -> None:
    table = table_with(readme(), "share of the memory bandwidth")
    cells = {k: v for one in gpu_checks() for k, v in one.get("real_cells", {}).items()}
    (torch,) = prose("On an H100 with torch {} (`bash")
    (n_models,) = prose("`experiments/results/gpu_check_h100_*.json`), {} replicates trained as")
    cpu = study_of_dataset("zeisel").values("knn/accuracy")
    with Comparison("README, training on a GPU") as compare:
        for check in gpu_checks():
            compare.equal("torch", torch, ".".join(check["environment"]["torch"].split(".")[:2]))
        for name, seconds, share, agreement in table.rows:
            if not name.startswith("`zeisel`"):
                compare_simulated(compare, name, seconds, share)
                continue
            method = f"markermap_{name.split()[1]}"
            row = cells[method]
            compare.number(f"{name}, models", n_models, row["n_models"])
            compare.number(f"{name}, seconds", seconds, row["fit_s"])
            found = re.fullmatch(r"(\S+) \((\d+) splits, p = ([\d.]+)\)", agreement)
            assert found, agreement
            n = int(found[2])
            difference = cpu[method][:n].to_numpy() - row["knn_accuracy"][:n]
            compare.number(f"{name}, splits", found[2], len(difference))
            compare.number(f"{name}, difference", found[1], difference.mean())
            compare.number(f"{name}, p", found[3], resampled_t_test(difference)[0])


def compare_simulated(compare: Comparison, name: str, seconds: str, share: str) -> None:
    """Compare a row of trainings of simulated cells, whose whole time is extrapolated."""
    found = re.search(r"(unsupervised|supervised), from (\d+) of (\d+) epochs", name)
    assert found, name
    (check,) = [one for one in gpu_checks() if "runs" in one["speed"]]
    wanted = f"markermap_{found[1]}, default, 10 models"
    (run,) = [one for one in check["speed"]["runs"] if one["run"] == wanted]
    if sizes := re.match(r"([\d,]+) simulated cells, ([\d,]+) genes", name):
        n_cells, n_genes, _ = check["speed"]["cells_genes_types"]
        compare.number(f"{name}, cells", sizes[1], n_cells)
        compare.number(f"{name}, genes", sizes[2], n_genes)
    compare.number(f"{name}, epochs", found[2], run["n_epochs"])
    compare.number(f"{name}, all epochs", found[3], run["n_epochs_of_whole_training"])
    n_more = run["n_epochs_of_whole_training"] - 1
    whole = run["first_epoch_with_upload_s"] + n_more * run["epoch_s"]
    compare.number(f"{name}, seconds", seconds, whole)
    bytes_per_s = run["bytes_per_step"] * run["n_steps_per_epoch"] / run["epoch_s"]
    bandwidth = 1e9 * check["bandwidth"]["copy_gb_per_s"]
    compare.number(f"{name}, share", share, bytes_per_s / bandwidth)


def test_open_faults_on_a_gpu() -> None:
    failed, total = prose(
        """{} of {} `--quick` unsupervised trainings of ten replicates on the simulated cells ended
        with a loss that is not a number"""
    )
    prose("where the GPU's memory was too small, smaller batches failed as well")
    speeds = [check["speed"] for check in gpu_checks()]
    diverged = [one for one in speeds if "the loss is nan" in one.get("error", "")]
    finished = [
        run
        for one in speeds
        for run in one.get("runs", [])
        if run["run"] == "markermap_unsupervised, quick, 10 models"
    ]
    with Comparison("README, faults on a GPU") as compare:
        compare.number("failed trainings", failed, len(diverged))
        compare.number("trainings", total, len(diverged) + len(finished))
        for check in gpu_checks():
            compare.equal("out of memory", check["out_of_memory"]["ok"], False)
