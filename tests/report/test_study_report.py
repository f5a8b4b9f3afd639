"""Search, promotion, report and reproduction through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from commands import mistake, run
from processes import SMALL, run_mmlab, tune

from mmlab.report.manifest import read_manifest
from mmlab.report.study import report_study
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.tracking import TrackingStore, find_champion

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

QUICK = ["--trials", "3", "--epochs", "3", "--seed", "4"]


class Page(HTMLParser):
    """Text, images, and external resources or scripts of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.images, self.external = "", list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes["src"] or "")
        self.external += [tag] if tag in ("script", "link", "iframe", "object") else []
        self.external += [name for name in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("promoted")


#: Kills mmlab before it writes the study file of a champion: the model is registered by then.
KILL = """
import os, pathlib, signal
replace = pathlib.Path.replace
def kill(path, target):
    if target.name == "pbmc68k_reduced.yaml":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
pathlib.Path.replace = kill
from mmlab.cli import main
main()
"""


@pytest.fixture(scope="module")
def promoted(folder: Path) -> dict[str, Any]:
    """A promotion that was killed once; the same command resumed it."""
    study = tune(folder, *SMALL, *QUICK)["study"]
    arguments = ["promote", study, "--replicates", "2", "--baselines", "random", "--json"]
    # Not to a pipe: what Ray leaves behind could hold it open.
    with (folder / "stderr").open("w") as output:
        killed = subprocess.run(
            [sys.executable, "-c", KILL, *arguments],
            cwd=folder,
            stdout=output,
            stderr=output,
            timeout=500,
        )
    assert killed.returncode == -signal.SIGKILL
    assert find_champion(store_of(folder), "pbmc68k_reduced", 10) is not None
    done = run_mmlab(folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert "trials to compute" not in done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.fixture(scope="module")
def report(folder: Path, promoted: dict[str, Any]) -> Path:
    done = run_mmlab(folder, "report", promoted["study"], "-o", "report")
    assert done.returncode == 0, done.stderr
    return folder / "report"


def store_of(folder: Path) -> TrackingStore:
    return TrackingStore(f"sqlite:///{folder}/mlflow.db")


def test_the_winner_becomes_the_champion(folder: Path, promoted: dict[str, Any]) -> None:
    assert promoted["promoted"]
    (test,) = promoted["tests"]
    best, default = promoted["candidates"][0]["method"], "markermap_supervised (default)"
    assert (test["method"], test["reference"]) == (best, default)
    better = test["p_holm"] < 0.05 and test["mean_difference"] > 0
    assert promoted["winner"] == (best if better else default)
    start = "New champion: " if better else "The search found nothing better than "
    assert promoted["headline"].startswith(start)
    assert promoted["verdict"].startswith(promoted["headline"])
    assert next(iter(promoted)) == "headline"
    champion = find_champion(store_of(folder), "pbmc68k_reduced", 10)
    assert champion is not None
    assert champion.model_name == "pbmc68k_reduced.markermap_supervised.10"
    assert champion.study == promoted["study"]
    assert promoted["champion"]["version"] == champion.version
    run = store_of(folder).client.get_run(promoted["run_id"])
    assert run.info.status == "FINISHED"
    # The metric of the promotion is the accuracy of this trial on the held-out test set.
    trials = [t for t in promoted["trials"] if t["digest"] == champion.digest]
    assert [t["method"] for t in trials] == [promoted["winner"]]
    assert [t["knn/accuracy"] for t in trials] == [run.data.metrics["locked/knn/accuracy"]]


def test_a_killed_promotion_leaves_nothing_open_or_twice(
    folder: Path, promoted: dict[str, Any]
) -> None:
    store = store_of(folder)
    assert not list(store.search({}, status="RUNNING"))
    assert len(store.client.search_model_versions()) == 1
    assert len(list(store.search({"mmlab.kind": "promotion"}))) == 1
    files = [path.name for path in (folder / "experiments" / "promoted").iterdir()]
    assert files == ["pbmc68k_reduced.yaml"]


def test_the_comparisons_are_nested_in_the_promotion(
    folder: Path, promoted: dict[str, Any]
) -> None:
    runs = {run.info.run_id: run for run in store_of(folder).search({})}
    kinds = ["trial", "method", "study", "promotion", "study"]
    for name in (promoted["locked"], promoted["paper"]):
        tags = {"mmlab.kind": "trial", "mmlab.study": name}
        trials = [run for run in runs.values() if tags.items() <= run.data.tags.items()]
        assert len(trials) == 2 * 3
        for trial in trials:
            chain = [trial]
            while parent := chain[-1].data.tags.get("mlflow.parentRunId"):
                chain.append(runs[parent])
            assert [run.data.tags["mmlab.kind"] for run in chain] == kinds
            assert chain[2].data.tags["mmlab.study"] == name
            assert chain[3].info.run_id == promoted["run_id"]
            assert chain[4].data.tags["mmlab.study"] == promoted["study"]


def test_the_study_file_of_the_champion_runs(folder: Path, promoted: dict[str, Any]) -> None:
    path = folder / "experiments" / "promoted" / "pbmc68k_reduced.yaml"
    text = path.read_text()
    for line in promoted["verdict"].splitlines():
        assert f"# {line}\n" in text
    assert (yaml.safe_load(text)["methods"][0]["label"]) == promoted["winner"]
    done = run_mmlab(folder, "run", str(path), "--json")
    assert done.returncode == 0, done.stderr
    # The promotion has computed all of its trials.
    assert "trials to compute" not in done.stderr
    assert len(json.loads(done.stdout)["trials"]) == 2 * 3


@pytest.mark.long
def test_a_second_promotion_finds_nothing_better_than_the_champion(
    folder: Path, promoted: dict[str, Any]
) -> None:
    options = ["promote", promoted["study"], "--replicates", "2", "--baselines", "random"]
    done = run_mmlab(folder, *options)
    assert done.returncode == 0, done.stderr
    headline = "The search found nothing better than the champion "
    assert done.stdout.startswith(headline)
    held_out, _, random_splits = done.stdout.partition("Random splits of all cells, most of which")
    assert (
        "not over cells" in held_out.partition("Held-out test set, which no search has seen\n")[2]
    )
    assert "not over cells" not in random_splits
    # With objectives, all trials on the Pareto front are evaluated.
    done = run_mmlab(folder, *options, "--objectives", "accuracy,reconstruction", "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert not again["promoted"]
    assert again["headline"].startswith(headline)
    assert again["champion"] == promoted["champion"]
    front = again["candidates"]
    assert front[0]["digest"] == promoted["candidates"][0]["digest"]
    assert {"accuracy", "reconstruction"} <= front[0].keys()


LOAD = """
import json, sys, warnings
import pandas as pd
from mmlab.datasets import DATASETS
import mmlab
model = mmlab.load_champion("pbmc68k_reduced", 10)
adata = DATASETS["pbmc68k_reduced"].load()[:40].copy()
predicted = model.predict(adata)
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
served = mlflow.pyfunc.load_model("models:/pbmc68k_reduced.markermap_supervised.10@champion")
from mmlab.preprocessing.normalization import log_normalize
values = log_normalize(adata.X, model.normalization).toarray()
frame = pd.DataFrame(values.astype(float), columns=adata.var_names, index=adata.obs_names)
served_types = served.predict(frame[model.markers])
assert served_types["cell_type"].tolist() == predicted["cell_type"].tolist()
reconstructed = served.predict(frame[model.markers], params={"output": "expression"})
assert reconstructed.shape == (40, len(model.genes))
try:
    served.predict(frame[model.markers[1:]])
except Exception as error:
    assert model.markers[0] in str(error)
else:
    raise AssertionError("a missing gene raised no error")
print(json.dumps({"types": predicted["cell_type"].tolist(), "markers": model.markers}))
"""


def test_the_champion_gives_the_same_predictions_in_every_process(
    folder: Path, promoted: dict[str, Any]
) -> None:
    environment = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    answers = [
        subprocess.run(
            [sys.executable, "-c", LOAD],
            cwd=folder,
            capture_output=True,
            text=True,
            env=os.environ | environment,
        )
        for _ in range(2)
    ]
    for done in answers:
        assert done.returncode == 0, done.stderr
    assert answers[0].stdout == answers[1].stdout
    assert len(json.loads(answers[0].stdout)["markers"]) == 10


def test_the_page_is_self_contained(report: Path, promoted: dict[str, Any]) -> None:
    page = Page((report / "report.html").read_text())
    assert not page.external
    assert len(page.images) > 4
    assert all(image.startswith("data:image/") for image in page.images)
    headings = ["Data", "Hyperparameter search", "Promotion", "Methods"]
    headings += ["Results on the held-out test set", "not over cells"]
    headings += ["Results on random splits", "Confusion between cell types", "Panel"]
    headings += ["Failed trials", "Runtime", "Limitations", "Reproduce this report"]
    # The report shows the last promotion, in which the champion has the same accuracy.
    score = re.search(r"kNN accuracy [\d.]+ on the held-out test set", promoted["headline"])
    assert score
    for text in [*headings, score.group(), f"mmlab promote {promoted['study']}"]:
        assert text in page.text
    assert "sha256" not in page.text


def test_every_file_is_in_the_manifest(report: Path) -> None:
    manifest = read_manifest(report / "manifest.json")
    files = {p.relative_to(report).as_posix() for p in report.rglob("*") if p.is_file()}
    assert files == {*manifest.files, "manifest.json"}
    assert {name.rpartition(".")[2] for name in files} == {
        *("html", "svg", "pdf", "parquet", "csv", "tex", "json")
    }
    digests = [trial.digest for trial in manifest.trials]
    assert len(set(digests)) == len(digests)
    panel = pd.read_parquet(report / "tables" / "panel.parquet")
    assert len(panel) == 10
    assert panel["stability"].between(0, 1).all()


@pytest.mark.long
def test_a_reproduction_gives_equal_metrics_and_panels(folder: Path, report: Path) -> None:
    done = run_mmlab(folder, "reproduce", "report/manifest.json", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(done.stdout)
    assert {number["verdict"] for number in content["numbers"]} == {"equal"}
    assert (
        content["same_panels"]
        == content["panels"]
        == len(read_manifest(report / "manifest.json").trials)
    )
    assert content["versions"] == []


def test_a_part_of_a_report_can_be_reproduced_on_another_processor(
    folder: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    done = run_mmlab(folder, "reproduce", "report", "--only", "random", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all numbers are equal" in done.stdout
    assert "environment: arithmetic is DEFAULT" in done.stdout
    assert "the panel of a trained model can differ in a few genes" in done.stdout


@pytest.mark.parametrize(
    "name", ["report.html", "tables/panel.csv", "figures/panel_umap.svg", "manifest.json"]
)
def test_a_changed_byte_is_detected(
    folder: Path, report: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    path = report / name
    before = path.read_bytes()
    middle = len(before) // 2
    path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    try:
        code, text = run("reproduce", "report/manifest.json")
    finally:
        path.write_bytes(before)
    assert code == (2 if name == "manifest.json" else 1), text
    assert name in text


def test_a_folder_with_other_files_is_not_changed(
    folder: Path, promoted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    other = folder / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    message = mistake("report", promoted["study"], "-o", "other")
    assert "contains files that are not a report" in message
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


def test_a_promotion_under_another_protocol_number_is_left_out(
    folder: Path, promoted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmlab.spec.trial.PROTOCOL_NUMBER", PROTOCOL_NUMBER + 1)
    report = report_study(promoted["study"], store_of(folder), tmp_path / "report")
    assert "Promotion" not in {section.title for section in report.sections}
    assert promoted["headline"] not in report.summary
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert "so all results are on validation cells" in page.text


def test_user_errors_have_a_message_and_no_traceback(
    folder: Path, promoted: dict[str, Any], report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    cases = {
        ("promote", "nothing"): "study 'nothing' is not in",
        ("promote", promoted["locked"]): "only a search (mmlab tune) has configurations",
        ("promote", promoted["study"], "--objectives", "beauty"): "objective 'beauty' is not among",
        ("report", "nothing", "-o", "new"): "study 'nothing' is not in",
        ("reproduce", "nowhere.json"): "cannot read nowhere.json",
        ("reproduce", "report", "--only", "rando"): "the report has no such method",
    }
    for arguments, message in cases.items():
        assert message in mistake(*arguments)
    assert not (folder / "new").exists()
