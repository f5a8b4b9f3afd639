"""Pages as a person sees them: headless Chromium, desktop and phone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE, about
from processes import run_mmlab
from servers import free_port, server

from mmlab.datasets.cells import Cells
from mmlab.report.folder import write_report
from mmlab.report.page import Report, Section, Table
from mmlab.tracking import TrackingStore

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here"),
]

DESKTOP, PHONE = (1280, 900), (390, 844)
PARAMETERS = ["hidden_size", "initial_temperature", "final_temperature", "beta", "learning_rate"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def resize(chromium: Any, size: tuple[int, int]) -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(chromium: Any) -> list[str]:
    """What the page wrote to its console as an error."""
    return [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_fits_the_window_and_shows_hostile_names_as_text(
    chromium: Any, hostile_report: Report, tmp_path: Path, size: tuple[int, int]
) -> None:
    write_report(hostile_report, about(), tmp_path / "report")
    resize(chromium, size)
    chromium.get((tmp_path / "report" / "report.html").as_uri())
    text = chromium.find_element("tag name", "body").text
    for name in HOSTILE:
        assert " ".join(name.split()) in " ".join(text.split())
    width = chromium.execute_script("return document.documentElement.scrollWidth")
    assert width <= size[0]
    broken = chromium.execute_script(
        "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    )
    assert broken == 0
    assert len(chromium.find_elements("tag name", "img")) == 2
    assert not complaints(chromium)


def test_wide_and_long_tables_and_commands_are_whole_or_scroll(
    chromium: Any, tmp_path: Path
) -> None:
    header = ["trial", "method", "outcome", "score", *PARAMETERS]
    row = ["ad7651cb", "markermap_unsupervised", "complete", "0.9413", *["0.0001345"] * 5]
    tables = [
        Table("Trials", header, [row] * 60, n_text_columns=3),
        Table("Long", header, [row] * 61, n_text_columns=3),
        Table("Wide", header * 3, [row * 3] * 2, n_text_columns=3),
    ]
    command = f"mmlab benchmark --methods {','.join(['markermap_unsupervised'] * 20)}"
    section = Section("Tables", [], tables, commands=[command])
    write_report(Report("title", "question", [], [section], []), about(), tmp_path / "report")
    resize(chromium, DESKTOP)
    chromium.get((tmp_path / "report" / "report.html").as_uri())
    boxes = chromium.execute_script(
        "return [...document.querySelectorAll('.scroll')].map("
        "b => [b.scrollWidth > b.clientWidth, b.scrollHeight > b.clientHeight])"
    )
    assert boxes == [[False, False], [False, True], [True, False]]
    # A command wraps.
    box = "(b => b.scrollWidth > b.clientWidth)(document.querySelector('pre'))"
    assert not chromium.execute_script(f"return {box}")
    # A name that contains no space is on one line.
    heights = chromium.execute_script(
        "return [...document.querySelectorAll('tbody tr')].slice(0, 60).map(r => r.offsetHeight)"
    )
    assert max(heights) < 1.6 * 16 * 1.55


@pytest.fixture(scope="module")
def hostile_store(hostile_cells: Cells, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds a run on data whose names are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    adata = hostile_cells.adata.copy()
    adata.obs_names = [f"cell {i}" for i in range(adata.n_obs)]
    adata.write_h5ad(folder / "tiny.h5ad")
    done = run_mmlab(
        folder,
        *("select", "--data", "tiny.h5ad", "--label-key", "cell_type", "--method", "random"),
        *("-k", "12", "--json", "--include", ",".join(HOSTILE[:2])),
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_mlflow_pages_show_hostile_names_as_text(chromium: Any, hostile_store: Path) -> None:
    port = free_port()
    with server(hostile_store, port, "mlflow.db"):
        resize(chromium, DESKTOP)
        address = f"http://127.0.0.1:{port}"
        (run,) = TrackingStore(f"sqlite:///{hostile_store}/mlflow.db").search(
            {"mmlab.kind": "trial"}
        )
        experiment, mode = run.info.experiment_id, "workflowType=machine_learning"
        chromium.get(f"{address}/#/experiments/{experiment}/runs?{mode}")
        shown(chromium, run.info.run_name)
        # The description of the run lists the first genes of the panel.
        chromium.get(f"{address}/#/experiments/{experiment}/runs/{run.info.run_id}?{mode}")
        shown(chromium, "Show more")
        chromium.find_element("xpath", "//*[text()='Show more']").click()
        shown(chromium, "First markers")
        for name in HOSTILE[:2]:
            shown(chromium, name)
        # MLflow asks who the user is, whether or not its server knows users; and Chromium says of
        # its layout that it took a second frame, where the machine is busy.
        known = ("/users/current", "ResizeObserver loop")
        assert not [text for text in complaints(chromium) if not any(k in text for k in known)]


def shown(chromium: Any, text: str) -> None:
    """Wait until a page shows a text."""
    deadline = time.monotonic() + 60
    while text not in chromium.find_element("tag name", "body").text:
        assert time.monotonic() < deadline, chromium.find_element("tag name", "body").text
        time.sleep(0.2)
