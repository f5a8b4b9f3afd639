"""Names and sizes of datasets in the cache, and damaged records."""

from __future__ import annotations

import logging

import pytest
from commands import mistake

from mmlab.datasets.cache.cache_paths import record_path
from mmlab.datasets.cache.records import find_record, list_records
from mmlab.datasets.cache.removal import remove_dataset


@pytest.mark.parametrize("name", ["../x_simulated", "a/simulated", "simulated\x1b[31m", "..", "é"])
def test_invalid_names_reach_no_path(name: str) -> None:
    for command in (["datasets", "simulate", "--like", "zeisel", "--name", f"{name}simulated"],):
        assert "is not a valid name of a dataset" in mistake(*command)
    assert "is not a valid name of a dataset" in mistake("datasets", "remove", name)
    assert f"dataset {name!r} is not among" in mistake("datasets", "info", name)


def test_a_name_has_at_most_100_characters() -> None:
    name = "simulated" + "x" * 92
    message = mistake("datasets", "simulate", "--like", "zeisel", "--name", name)
    assert "is not a valid name of a dataset: use at most 100 letters" in message


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (["--cells", "10000000000000", "--genes", "10"], "disk space"),
        (["--cells", "3000", "--genes", "1000000000000"], "disk space"),
        (["--cells", "60", "--genes", "30000000000", "--density", "0.001"], "memory"),
    ],
)
def test_simulations_that_do_not_fit_are_refused(
    size: list[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "memory":
        usage = type("Usage", (), {"free": 2**60})
        monkeypatch.setattr("mmlab.datasets.cache.install.shutil.disk_usage", lambda _: usage)
    message = mistake("datasets", "simulate", "--like", "zeisel", *size)
    assert f"GB of {kind}, but" in message
    assert "Lower --cells, --genes or --density." in message


def test_a_damaged_record_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    path = record_path("torn")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"name": "to')
    with caplog.at_level(logging.WARNING):
        assert find_record("torn") is None
    assert f"the record of a dataset {path} is damaged: moved to torn.json.damaged-" in caplog.text
    assert "torn" not in list_records()
    with pytest.raises(ValueError, match="'torn' is not in the cache"):
        remove_dataset("torn")
    (aside,) = path.parent.glob("torn.json.damaged-*")
    aside.unlink()
