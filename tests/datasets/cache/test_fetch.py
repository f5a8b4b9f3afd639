from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from commands import run
from originals import FILLERS, Server, serve, write_mouse_brain, write_paul, write_ssv4
from tiny import simulate_cells

from mmlab.datasets import DATASETS, add_file, load_cells, ssv4
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE, counts_path
from mmlab.datasets.cache.cached_counts import open_cells
from mmlab.datasets.cache.download import CHECKSUMS_FILE, download
from mmlab.datasets.cache.install import fetch_dataset
from mmlab.datasets.cache.records import find_record, list_records
from mmlab.datasets.description import Dataset
from mmlab.datasets.gene_filters import (
    detection_rates,
    has_excluded_name,
    is_detected,
    is_type_specific,
)
from mmlab.datasets.io.zip_archive import open_archive, open_member
from mmlab.datasets.remote_files import BONE_MARROW, STEM_CELLS, RemoteFile
from mmlab.datasets.ssv4 import ARCHIVE, LABELS
from mmlab.errors import UserError
from mmlab.spec.trial import DataSpec

REAL = Path(__file__).parents[4] / "shared" / "data" / "downloads"
WRITERS = {
    "paul": write_paul,
    "mouse_brain": write_mouse_brain,
    "mouse_brain_subtypes": write_mouse_brain,
    "mouse_brain_all_genes": write_mouse_brain,
    "ssv4": write_ssv4,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "originals"
    folder.mkdir()
    return folder


@pytest.fixture
def server(originals: Path) -> Iterator[Server]:
    with serve(originals) as running:
        yield running


def without_checksums(name: str) -> Dataset:
    """The dataset without published checksums: the small test files have others."""
    dataset = DATASETS[name]
    sources = tuple(replace(source, sha256=None) for source in dataset.sources)
    return replace(dataset, sources=sources)


# --- conversion


def test_every_downloaded_dataset_has_test_files() -> None:
    assert set(WRITERS) == {name for name, dataset in DATASETS.items() if dataset.sources}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_dataset_is_converted_from_files_in_the_original_formats(
    name: str, originals: Path
) -> None:
    WRITERS[name](originals)
    record = fetch_dataset(without_checksums(name), str(originals))
    cells = open_cells(record)
    genes, sizes = set(cells.genes), cells.adata.obs["cell_type"].value_counts().to_dict()
    if name == "paul":
        assert genes == {"Alpha", "Beta", "Gamma"}
        expected = {"Ery": 36, "GMP": 12, "Baso": 12, "Mo": 12, "Neu": 12}
        assert sizes == expected | dict.fromkeys(("MEP", "Mk", "DC", "Eos", "Lymph"), 6)
    elif name == "mouse_brain":
        assert genes == {"Slc17a7", "Cux2", "Gad1", "Mbp", *FILLERS}
        assert sizes == {"Ext": 100, "Inh": 40, "Oligo": 40}
    elif name == "mouse_brain_subtypes":
        # Mbp is ubiquitous: it is in most cells of three of the five fine types. Of the three broad
        # types, it is in most cells of one only.
        assert genes == {"Slc17a7", "Cux2", "Gad1", *FILLERS}
        assert sizes == {"Ext_L1": 50, "Ext_L2": 50, "Inh_1": 40, "Oligo_1": 40, "Unk_1": 12}
    elif name == "mouse_brain_all_genes":
        assert len(cells.genes) == 11
        assert "ENSMUSG0005" in genes
        assert cells.adata.n_obs == 192
    else:
        assert genes == {"Vip", "Sncg", "Sst", "Other", *FILLERS}
        assert sizes == {"Vip A": 30, "Vip B": 30, "Sst A": 40}
    assert record.n_genes == len(cells.genes)
    assert record.made_from.keys() <= {source.name for source in DATASETS[name].sources}


def test_counts_are_assigned_to_the_right_cells_and_genes(originals: Path) -> None:
    write_ssv4(originals)
    adata = open_cells(fetch_dataset(without_checksums("ssv4"), str(originals))).adata
    with zipfile.ZipFile(originals / ARCHIVE.name) as archive:
        begin = "mouse_VISp_2018-06-14_"
        matrix = pd.read_csv(archive.open(f"{begin}exon-matrix.csv"), index_col=0)
        genes = pd.read_csv(archive.open(f"{begin}genes-rows.csv"))
        samples = pd.read_csv(archive.open(f"{begin}samples-columns.csv"), encoding="latin-1")
    labels = pd.read_csv(originals / LABELS.name, index_col="seq_name")["cell_types_98"]
    seq_name = samples.set_index("sample_name")["seq_name"]
    entrez = genes.set_index("gene_symbol")["gene_entrez_id"]
    for row, sample in enumerate(adata.obs_names):
        assert adata.obs["cell_type"].iloc[row] == labels[seq_name[sample]]
    expected = matrix.loc[entrez[adata.var_names], adata.obs_names].T
    np.testing.assert_array_equal(adata.X.toarray(), expected.to_numpy())


def test_missing_housekeeping_lists_are_noted(originals: Path) -> None:
    write_paul(originals)
    (originals / BONE_MARROW.name).unlink()
    record = fetch_dataset(without_checksums("paul"), str(originals))
    assert any(BONE_MARROW.name in note and "not filtered out" in note for note in record.notes)
    assert "Keeper1" in set(open_cells(record).genes)
    assert STEM_CELLS.name in record.made_from


def test_sizes_that_differ_from_the_published_ones_are_noted(originals: Path) -> None:
    write_mouse_brain(originals)
    notes = fetch_dataset(without_checksums("mouse_brain"), str(originals)).notes
    assert "It has 180 cells x 7 genes, 3 types; published: 39583 cells x 4581" in notes[-1]


def test_highly_variable_genes_are_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssv4, "_N_VARIABLE", 60)
    rng = np.random.default_rng(0)
    mean = rng.lognormal(1, 1, 400)
    # The mean of every second gene varies between cells.
    level = np.where(np.arange(400) % 2, 1, rng.gamma(0.5, 2, (200, 400)))
    counts = sp.csr_matrix(rng.poisson(mean * level).astype(np.float32))
    chosen = ssv4._highly_variable(ad.AnnData(X=counts))
    assert chosen.sum() == 60
    assert (np.flatnonzero(chosen) % 2 == 0).mean() > 0.9


@pytest.mark.skipif(not REAL.is_dir(), reason="the original downloads are not on this machine")
def test_the_original_gene_lists_and_labels_can_be_read(originals: Path, server: Server) -> None:
    write_ssv4(originals, pd.read_csv(REAL / LABELS.name))
    for source in (BONE_MARROW, STEM_CELLS, LABELS):
        shutil.copy(REAL / source.name, originals)
    # These files have the published checksums.
    record = fetch_dataset(DATASETS["ssv4"], server.address)
    assert (record.n_cells, record.n_classes) == (13342, 92)
    assert set(record.made_from) == {source.name for source in DATASETS["ssv4"].sources}


def test_a_file_in_another_format_gives_one_error(originals: Path) -> None:
    write_paul(originals)
    (originals / "paul15.h5").write_text("<html>moved</html>")
    with pytest.raises(UserError, match=r"paul cannot be converted from paul15\.h5"):
        fetch_dataset(without_checksums("paul"), str(originals))
    assert list_records() == {}


def test_gene_filters_follow_the_definitions_of_the_paper() -> None:
    assert has_excluded_name(
        ["Mt1", "Mtor", "mt-Co1", "Rps3", "Gad1", "Actb"], ["Actb"]
    ).tolist() == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(0.4, (300, 80)).astype(np.float32))
    y = rng.integers(0, 4, 300)
    dense = counts.toarray() > 0
    rates = np.stack([dense[y == t].mean(axis=0) for t in range(4)])
    np.testing.assert_allclose(detection_rates(counts, y), rates)
    kept = (rates >= 0.3).any(axis=0) & ~((rates >= 0.75).sum(axis=0) >= 2)
    np.testing.assert_array_equal(is_type_specific(counts, y), kept)
    n_detected, total = dense.sum(axis=0), counts.toarray().sum(axis=0)
    high_mean = np.divide(total, n_detected, out=np.zeros(80), where=n_detected > 0) > 1.12
    detected = (n_detected > 0.0005 * 300) & (high_mean | (n_detected > 0.03 * 300))
    np.testing.assert_array_equal(is_detected(counts), detected)


# --- downloads


def test_an_interrupted_download_is_resumed(
    originals: Path, server: Server, tmp_path: Path
) -> None:
    content = random.Random(0).randbytes(300_000)
    (originals / "a.bin").write_bytes(content)
    server.cuts, server.cut_after = 2, 100_000
    path = download(RemoteFile("a.bin", ()), tmp_path / "d", server.address)
    assert path.read_bytes() == content
    ranges = [requested for _, requested in server.requests]
    assert ranges == ["", "bytes=65536-", "bytes=131072-"]
    assert sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")) == [
        "a.bin",
        CHECKSUMS_FILE,
    ]


@pytest.mark.parametrize("change", ["another version", "no ranges"])
def test_a_part_of_another_version_is_not_resumed(
    change: str,
    originals: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmlab.datasets.cache.download._ATTEMPTS", 1)
    (originals / "a.bin").write_bytes(b"old" * 50_000)
    server.cuts, server.cut_after = 1, 100_000
    with pytest.raises(UserError, match=r"a\.bin cannot be downloaded .* of 150,000 bytes"):
        download(RemoteFile("a.bin", ()), tmp_path / "d", server.address)
    assert (tmp_path / "d" / ".a.bin.part").stat().st_size == 65536
    server.version = '"one"' if change == "no ranges" else '"two"'
    server.ranges = change != "no ranges"
    (originals / "a.bin").write_bytes(b"new" * 50_000)
    path = download(RemoteFile("a.bin", ()), tmp_path / "d", server.address)
    assert path.read_bytes() == b"new" * 50_000
    assert server.requests[-1] == ("a.bin", "bytes=65536-")


def test_a_wrong_checksum_is_rejected(originals: Path, server: Server, tmp_path: Path) -> None:
    (originals / "a.bin").write_bytes(b"received")
    with pytest.raises(
        UserError, match=r"a\.bin: the file from http.* has the sha256 .* but 0000 is"
    ):
        download(RemoteFile("a.bin", (), sha256="0000"), tmp_path / "d", server.address)
    assert [p.name for p in (tmp_path / "d").iterdir() if not p.name.startswith(".")] == []


def test_the_checksum_of_the_first_download_is_required(
    originals: Path, server: Server, tmp_path: Path
) -> None:
    (originals / "a.bin").write_bytes(b"first")
    path = download(RemoteFile("a.bin", ()), tmp_path / "d", server.address)
    path.unlink()
    (originals / "a.bin").write_bytes(b"second")
    with pytest.raises(UserError, match=r"that of the first download \(stored in .*checksums.json"):
        download(RemoteFile("a.bin", ()), tmp_path / "d", server.address)
    assert not path.exists()


def test_urls_are_tried_in_order(originals: Path, server: Server, tmp_path: Path) -> None:
    (originals / "a.bin").write_bytes(b"content")
    urls = (f"{server.address}/missing", f"{server.address}/a.bin")
    assert download(RemoteFile("a.bin", urls), tmp_path / "d").read_bytes() == b"content"
    with pytest.raises(UserError, match=r"missing: the server responds 404 Not Found"):
        download(RemoteFile("b.bin", urls[:1]), tmp_path / "d")


# --- fetching


def test_fetching_twice_downloads_once(originals: Path, server: Server, cache: Path) -> None:
    write_mouse_brain(originals)
    first = fetch_dataset(DATASETS["mouse_brain"], server.address)
    assert fetch_dataset(DATASETS["mouse_brain"], server.address) == first
    # The subtypes are converted from the same files.
    fetch_dataset(DATASETS["mouse_brain_subtypes"], server.address)
    assert len(server.requests) == 2
    assert load_cells(DataSpec(name="mouse_brain")).fingerprint == first.fingerprint


def mmlab(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmlab", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_that_fetch_concurrently_produce_one_copy(
    originals: Path, server: Server, cache: Path
) -> None:
    write_mouse_brain(originals, extra_genes=2000)
    server.delay = 0.01
    command = ("datasets", "fetch", "mouse_brain", "--source", server.address, "--json")
    both = [mmlab(*command), mmlab(*command)]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    first, second = (json.loads(out) for out, _ in printed)
    assert first == second
    assert sorted(name for name, _ in server.requests) == sorted(
        source.name for source in DATASETS["mouse_brain"].sources
    )
    assert open_cells(list_records()["mouse_brain"]).adata.n_obs == 180
    assert len(list((cache / "counts").iterdir())) == 1


@pytest.mark.slow
def test_a_killed_fetch_leaves_nothing_or_a_complete_dataset(
    originals: Path, server: Server, cache: Path
) -> None:
    write_mouse_brain(originals, extra_genes=4000)
    server.delay = 0.01
    kill_times = random.Random(new_seed())
    outcomes = []
    for _ in range(5):
        process = mmlab("datasets", "fetch", "mouse_brain", "--source", server.address)
        try:
            process.wait(timeout=kill_times.uniform(1.0, 4.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        record = find_record("mouse_brain")
        outcomes.append(record is not None)
        if record is not None:
            assert open_cells(record).adata.n_obs == 180
    # A complete dataset stays.
    assert outcomes == sorted(outcomes)
    process = mmlab("datasets", "fetch", "mouse_brain", "--source", server.address)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert open_cells(list_records()["mouse_brain"]).adata.shape == (180, 4007)
    leftover = [p.name for p in cache.rglob("*") if re.search(r"\.part|partial", p.name)]
    assert leftover == []


def new_seed() -> int:
    """A new seed for every run; it is printed so that a failure can be reproduced."""
    seed = int.from_bytes(os.urandom(4))
    print(f"kill times from random.Random({seed})")
    return seed


def test_offline_errors_explain_how_to_download_by_hand(
    originals: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLAB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        load_cells(DataSpec(name="ssv4"))
    message = str(caught.value)
    for source in DATASETS["ssv4"].sources:
        assert f"{source.urls[0]} as {source.name}" in message
    assert "mmlab datasets fetch ssv4 --source FOLDER" in message
    with pytest.raises(UserError, match="downloads are disabled"):
        fetch_dataset(DATASETS["ssv4"], server.address)
    assert server.requests == []


def test_a_source_folder_without_a_file_is_rejected(originals: Path) -> None:
    with pytest.raises(UserError, match=r"--source .* has no file all_cells_20200625.h5ad"):
        fetch_dataset(DATASETS["mouse_brain"], str(originals))


# --- the command line


def test_the_command_line_fetches_lists_describes_and_removes(originals: Path, cache: Path) -> None:
    write_mouse_brain(originals)
    code, out = run("datasets", "fetch", "mouse_brain", "--source", str(originals))
    assert code == 0, out
    assert "180 cells x 7 genes, 3 types" in out
    rows = {
        row["name"]: row for row in json.loads(run("datasets", "list", "--json")[1])["datasets"]
    }
    assert rows["mouse_brain"]["state"] == "cached"
    assert rows["mouse_brain"]["bytes"] == find_record("mouse_brain").bytes  # type: ignore[union-attr]
    assert (rows["ssv4"]["state"], rows["zeisel"]["state"]) == ("missing", "packaged")
    info = json.loads(run("datasets", "info", "mouse_brain", "--json")[1])
    assert info["types"] == {"Ext": 100, "Inh": 40, "Oligo": 40}
    assert len(info["made_from"]["all_cells_20200625.h5ad"]) == 64
    assert json.loads(run("datasets", "remove", "mouse_brain", "--json")[1])["freed_bytes"] > 0
    assert run("datasets", "remove", "mouse_brain") == (
        2,
        f"dataset 'mouse_brain' is not in the cache {cache}; datasets there: none.",
    )
    assert list((cache / "counts").iterdir()) == []


def test_a_packaged_dataset_is_not_fetched() -> None:
    assert run("datasets", "fetch", "zeisel")[1].startswith("zeisel is part of mmlab")


@pytest.mark.parametrize("damage", ["a flipped bit", "truncated", "missing"])
def test_counts_that_are_damaged_on_disk_are_fetched_again(
    damage: str,
    originals: Path,
    server: Server,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_mouse_brain(originals)
    record = fetch_dataset(DATASETS["mouse_brain"], server.address)
    path = cache / "counts" / f"{record.sha256}.h5ad"
    original = path.read_bytes()
    added = tmp_path / "mine.h5ad"
    simulate_cells().write_h5ad(added)
    of_user = add_file(added, "cell_type", None, "mine")
    for file in (path, counts_path(of_user.sha256)):
        content = bytearray(file.read_bytes())
        if damage == "a flipped bit":
            content[-100] ^= 1
            file.write_bytes(content)
        elif damage == "truncated":
            file.write_bytes(content[:-100])
        else:
            file.unlink()

    cells = load_cells(DataSpec(name="mouse_brain"))

    assert caplog.text.count("\n") == 1
    assert f"the counts of mouse_brain, {path}, are damaged: fetching them again" in caplog.text
    assert cells.fingerprint == record.fingerprint
    assert path.read_bytes() == original
    assert len(server.requests) == 2
    load_cells(DataSpec(name="mouse_brain"))
    assert caplog.text.count("\n") == 1
    # The user's own file is needed to add its cells again.
    state = "are not in .* on this machine" if damage == "missing" else "has changed on disk"
    with pytest.raises(UserError, match=f"{state}: run mmlab datasets remove mine, then fetch or"):
        load_cells(DataSpec(name="mine"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a.bin": 1}'])
def test_a_damaged_list_of_checksums_is_set_aside(
    damage: str, originals: Path, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (originals / "a.bin").write_bytes(b"content")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / CHECKSUMS_FILE).write_text(damage)
    path = download(RemoteFile("a.bin", ()), tmp_path / "d", server.address)
    assert f"the list of checksums {tmp_path}/d/{CHECKSUMS_FILE} is damaged: moved" in caplog.text
    known = json.loads((tmp_path / "d" / CHECKSUMS_FILE).read_text())
    assert known == {"a.bin": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_removing_keeps_downloads_that_another_dataset_needs(
    originals: Path, server: Server, cache: Path
) -> None:
    write_mouse_brain(originals)
    for name in ("mouse_brain", "mouse_brain_subtypes"):
        fetch_dataset(DATASETS[name], server.address)
    run("datasets", "remove", "mouse_brain")
    assert (cache / "downloads" / "all_cells_20200625.h5ad").is_file()
    run("datasets", "remove", "mouse_brain_subtypes")
    assert not (cache / "downloads" / "all_cells_20200625.h5ad").is_file()


# --- archives


@pytest.mark.parametrize("name", ["../outside.csv", "/etc/outside.csv", "C:\\outside.csv"])
def test_an_archive_with_paths_outside_is_rejected(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    with (
        pytest.raises(UserError, match=r"a\.zip: the member .*outside\.csv' points outside"),
        open_archive(tmp_path / "a.zip"),
    ):
        pass


def test_a_zip_bomb_is_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", bytes(30_000_000))
    with (
        pytest.raises(UserError, match=r"'a.csv' unpacks from [\d,]+ to 30,000,000 bytes"),
        open_archive(tmp_path / "a.zip"),
    ):
        pass


def test_a_damaged_archive_gives_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match="cannot be read as a zip archive"), open_archive(path):
        pass
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/a.csv", "numbers" * 1000)
    with open_archive(path) as archive:
        with open_member(archive, "a.csv") as stream:
            assert stream.read(7) == b"numbers"
        with pytest.raises(UserError, match=r"has no file b\.csv; it has: folder/a\.csv"):
            open_member(archive, "b.csv").__enter__()
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with (
        open_archive(path) as archive,
        pytest.raises(UserError, match=r"a\.csv is damaged"),
        open_member(archive, "a.csv") as stream,
    ):
        stream.read()
