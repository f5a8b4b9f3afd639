"""Report folder and manifest: escaping, replacement, detection of changed files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hostile import about
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.report.folder import check_folder, write_report
from mmlab.report.manifest import (
    Manifest,
    TrialEntry,
    changed_files,
    finite_metrics,
    read_manifest,
    tolerances,
)
from mmlab.report.page import Report
from mmlab.report.panel import describe_panel
from mmlab.report.reproduce import reproduce
from mmlab.report.study import report_study
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.spec.resources import Resources
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.files import temporary_path
from mmlab.tracking import TrackingStore


@pytest.fixture(scope="module")
def folder(hostile_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "report"
    write_report(hostile_report, about(), path)
    return path


def test_hostile_names_are_escaped(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "非ラテン文字" in page
    assert "default-src 'none'" in page
    assert 'best">0.9</td>' in page
    tex = (folder / "tables" / "panel.tex").read_text()
    assert "\\textbackslash textbf" in tex
    assert pd.read_parquet(folder / "tables" / "panel.parquet")["gene"].tolist()[:1]


def test_equal_reports_give_equal_files(hostile_report: Report, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_report(hostile_report, about(), tmp_path / name)
    first, second = (read_manifest(tmp_path / name) for name in ("first", "second"))
    assert first.files == second.files


def test_describe_panel(hostile_cells: Cells) -> None:
    panels = [np.array([3, 17, 5]), np.array([3, 5, 8])]
    table = describe_panel(panels, hostile_cells)
    assert table["gene_index"].tolist() == [3, 5, 17]
    stability = dict(zip(table["gene_index"], table["stability"], strict=True))
    assert stability[3] == stability[5] == 1.0
    assert stability[17] == 0.5
    # 3 and 17 are markers of the first type, 5 of the second.
    highest = dict(zip(table["gene_index"], table["highest_in"], strict=True))
    assert highest[3] == highest[17] != highest[5]
    assert (table["mean_there"] > table["mean_elsewhere"]).all()


def test_a_changed_byte_in_any_file_is_detected(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert not changed_files(manifest, folder)
    for name in manifest.files:
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert changed_files(manifest, folder) == [f"{name} was changed"]
        path.unlink()
        assert changed_files(manifest, folder) == [f"{name} is missing"]
        path.write_bytes(before)


def test_a_changed_byte_in_the_manifest_is_detected(folder: Path, tmp_path: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    path = tmp_path / "manifest.json"
    rng = np.random.default_rng(0)
    for position in {0, len(before) - 1, *rng.integers(len(before), size=60).tolist()}:
        path.write_bytes(before[:position] + bytes([before[position] ^ 1]) + before[position + 1 :])
        with pytest.raises(UserError, match="changed"):
            read_manifest(path)
    path.write_bytes(before + b" ")
    with pytest.raises(UserError, match="changed"):
        read_manifest(path)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.floats(-1e6, 1e6), max_size=4))
def test_a_manifest_stores_metrics_exactly(metrics: dict[str, float]) -> None:
    entry = TrialEntry(
        method="m",
        setting="k=5",
        digest="d",
        spec=TrialSpec(data=DataSpec(name="tiny"), selector="random"),
        panel=[1, 2],
        metrics=metrics,
        tolerance=metrics,
    )
    manifest = Manifest(**about(trials=[entry]), protocol_number=PROTOCOL_NUMBER, files={})
    text = manifest.to_text()
    assert Manifest.model_validate_json(text[: text.index('"sha256"')].rstrip(" \n,") + "}") == (
        manifest
    )


def test_finite_metrics_leaves_out_nan_and_other_values() -> None:
    row = {"knn/accuracy": 0.9, "validation/linear/l2": 0.5, "leiden/nmi": float("nan")}
    row |= {"seconds": 3.0, "panel": [1, 2], "knn/accuracy_std": 0.1, "digest": "x"}
    assert finite_metrics(row) == {"knn/accuracy": 0.9, "validation/linear/l2": 0.5}


def test_tolerances_are_three_standard_deviations() -> None:
    found = tolerances([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}])
    assert found["a"] == pytest.approx(3 * 2**0.5)
    assert found["b"] == 1e-6
    assert tolerances([{"a": 1.0}]) == {"a": 1e-6}


def test_an_older_report_is_replaced_only_if_writing_succeeds(
    hostile_report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(hostile_report, about(study="first"), tmp_path / "report")
    before = read_manifest(tmp_path / "report")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mmlab.report.folder._write_table", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_report(hostile_report, about(study="second"), tmp_path / "report")
    assert read_manifest(tmp_path / "report") == before
    assert not changed_files(before, tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    write_report(hostile_report, about(study="second"), tmp_path / "report")
    assert read_manifest(tmp_path / "report").study == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_report_that_a_killed_command_moved_away_is_found(
    hostile_report: Report,
    hostile_cells: Cells,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "report"
    write_report(hostile_report, about(), folder)
    monkeypatch.setattr("mmlab.report.reproduce.load_cells", lambda _: hostile_cells)
    for path in (folder, folder / "manifest.json"):
        # What is left of a report whose process is killed between two renames.
        folder.rename(temporary_path(folder, "old"))
        temporary_path(folder).mkdir(exist_ok=True)
        found = reproduce(path, Resources(), Console(quiet=True))
        assert [text.split(" ")[:2] for text in found.changed] == [["the", "data"]]
    folder.rename(temporary_path(folder, "old"))
    with pytest.raises(UserError, match="study 'unknown' is not in"):
        report_study("unknown", TrackingStore(f"sqlite:///{tmp_path}/mlflow.db"), folder)
    assert not changed_files(read_manifest(folder), folder)


def test_check_folder_accepts_new_and_empty_folders_only(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    for path, message in {
        tmp_path / "nowhere" / "new": "does not exist",
        tmp_path / "file": "is a file",
        tmp_path: "contains files that are not a report",
    }.items():
        with pytest.raises(UserError, match=message):
            check_folder(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "figures/../../x", "link", "a\0b"])
def test_a_manifest_reaches_no_file_outside_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    manifest = Manifest(**about(), protocol_number=PROTOCOL_NUMBER, files={name: "0" * 64})
    (folder / "manifest.json").write_text(manifest.to_text())
    monkeypatch.setattr("mmlab.report.manifest.file_hash", None)
    with pytest.raises(UserError, match="is not the manifest of a report, or it was changed"):
        read_manifest(folder)
