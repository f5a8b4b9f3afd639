"""Files of finished replicates: impossible values are refused with row and column."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlab.comparison.result_table import ResultFile, read_rows
from mmlab.comparison.row_checks import check_planned
from mmlab.errors import UserError

ROW: dict[str, Any] = {
    "digest": "ab" * 32,
    "fingerprint": "f",
    "selector": "random",
    "n_markers": 3,
    "noise_level": 0.0,
    "seed": 0,
    "replicate": 0,
    "panel": [0, 2, 9],
    "seconds": 1.0,
    "fit_seconds": 0.5,
    "knn/accuracy": 0.9,
    "linear/explained_variance": -3.0,
    "linear/l2": 7.0,
    "confusion/knn": [[3, 0], [1, 2]],
    "per_class_f1/knn": [0.5, math.nan],
}


def write(folder: Path, **changes: Any) -> Path:
    good = {**ROW, "digest": "cd" * 32}
    changed = {key: value for key, value in (ROW | changes).items() if value is not None}
    path = folder / "rows.parquet"
    pd.DataFrame([good, changed]).to_parquet(path, index=False)
    return path


def test_possible_values_are_accepted(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, **{"linear/l2": np.nan}), {"f": 10})
    assert [row["panel"] for row in rows] == [[0, 2, 9]] * 2
    assert "linear/l2" not in rows[1]
    # The number of genes of other data is not known.
    assert len(read_rows(write(tmp_path), {"g": 3})) == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"knn/accuracy": 7.0}, "knn/accuracy: must be between 0 and 1, got 7.0"),
        ({"linear/l2": -1.0}, "linear/l2: must be between 0 and inf, got -1.0"),
        ({"panel": [0, 2, 10]}, "panel: must be indices of the 10 genes, got 10"),
        ({"panel": [0, 2, -1]}, "panel: must be a list of gene indices, got"),
        ({"panel": [0, 2, 2]}, "panel: must not contain a gene twice, got"),
        ({"panel": []}, "panel: must be a list of gene indices, got"),
        ({"panel": None}, "panel: is missing"),
        ({"digest": "short"}, "digest: must be a SHA-256 in hexadecimal, got 'short'"),
        ({"seconds": -1.0}, "seconds: must be a number of seconds, got -1.0"),
        ({"noise_level": 2.0}, "noise_level: must be between 0 and 1, got 2.0"),
        ({"replicate": -1}, "replicate: must be a non-negative integer, got -1"),
        ({"panel": [0, 2]}, "panel: must have n_markers = 3 genes, got 2"),
        ({"knn/accuracy": math.nan}, "knn/accuracy: is missing"),
        ({"seconds": 1e300}, "seconds: must be a number of seconds, got 1e+300"),
        ({"epochs": -2}, "epochs: must be a non-negative integer, got -2"),
        ({"confusion/knn": [[3, 0]]}, "confusion/knn: must be a square matrix of numbers of cells"),
        ({"digest": "cd" * 32, "seed": 1}, "digest: is that of row 0, which has other values"),
    ],
)
def test_impossible_values_are_refused(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        read_rows(path, {"f": 10})
    assert str(error.value).startswith(f"{path}, row 1 (counted from 0), column {problem}")


def test_text_is_no_number_and_no_panel(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame([ROW | {"knn/accuracy": "high"}]).to_parquet(path)
    with pytest.raises(UserError, match="column knn/accuracy: must be a number, got 'high'"):
        read_rows(path)
    pd.DataFrame([ROW | {"per_class_f1/knn": ["a"]}]).to_parquet(path)
    with pytest.raises(UserError, match="column per_class_f1/knn: must be a list of numbers, got"):
        read_rows(path)
    pd.DataFrame([ROW | {"panel": ["Gene1"]}]).to_parquet(path)
    with pytest.raises(UserError, match="column panel: must be a list of gene indices, got"):
        read_rows(path)


def test_a_row_of_another_trial_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    rows = ResultFile.read(path).by_digest
    check_planned(path, rows, [ROW, ROW | {"digest": "ef" * 32, "replicate": 1}])
    for column, value in {"replicate": 3, "fingerprint": "g", "selector": "cosg"}.items():
        with pytest.raises(UserError) as error:
            check_planned(path, rows, [ROW | {column: value}])
        assert str(error.value).startswith(
            f"{path}, row with digest abababab, column {column}: must be {value!r} as in the "
            f"trial with this digest, got {ROW[column]!r}"
        )


def test_a_torn_file_is_set_aside_and_another_file_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path)
    torn = path.read_bytes()[:-30]
    path.write_bytes(torn)
    with caplog.at_level(logging.WARNING):
        assert ResultFile.read(path).by_digest == {}
    assert f"the file of finished replicates {path} is damaged: moved to" in caplog.text
    (aside,) = tmp_path.iterdir()
    assert aside.read_bytes() == torn
    path.write_text("notes of the user, PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        ResultFile.read(path)
    assert path.read_text() == "notes of the user, PAR1"


def test_a_full_disk_does_not_stop_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ResultFile({ROW["digest"]: ROW}, tmp_path / "rows.parquet")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", full)
        file.write()
    assert file.error == "No space left on device"
    file.write()
    assert file.error == ""
    assert len(read_rows(tmp_path / "rows.parquet")) == 1
