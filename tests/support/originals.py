"""Small files in the formats of the downloaded datasets, and an HTTP server for them."""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets import mouse_brain, paul, ssv4
from mmlab.datasets.remote_files import BONE_MARROW, STEM_CELLS


def counts_with_rates(
    y: np.ndarray, rates: list[dict[int, float]], rng: np.random.Generator
) -> np.ndarray:
    """Counts (n_cells, n_genes) with exact detection rates of the genes in the types.

    ``rates`` has one dict per gene, with the detection rate by type; it is 0 for other types.
    """
    counts = np.zeros((len(y), len(rates)), dtype=np.int64)
    for gene, by_type in enumerate(rates):
        for label, rate in by_type.items():
            cells = rng.permutation(np.flatnonzero(y == label))
            detected = cells[: round(rate * len(cells))]
            counts[detected, gene] = rng.integers(2, 20, len(detected))
    return counts


#: Genes that give every cell counts; each is detected in all cells of a third of the types.
FILLERS = ["Fill0", "Fill1", "Fill2"]


def filler_rates(n_types: int) -> list[dict[int, float]]:
    return [dict.fromkeys(range(first, n_types, 3), 1.0) for first in range(3)]


def write_housekeeping(folder: Path) -> None:
    (folder / BONE_MARROW.name).write_text("Keeper1\n\nKeeper2\n", encoding="utf-8")
    (folder / STEM_CELLS.name).write_text("Keeper2\nKeeper3\n", encoding="utf-8")


#: Genes of the small paul15.h5. Rps3, Mtor, Keeper1 and Keeper3 are filtered out by name, and
#: Unlisted is not an informative gene.
PAUL_GENES = ["Alpha", "Beta;Betb", "Gamma", "Rps3", "Mtor", "Keeper1", "Keeper3", "Unlisted"]


def write_paul(folder: Path) -> None:
    """Write paul15.h5 with six cells of each of the 19 clusters."""
    rng = np.random.default_rng(0)
    clusters = rng.permutation(np.repeat(np.arange(1, 20), 6))
    counts = rng.poisson(3, (len(PAUL_GENES), len(clusters))).astype(float)
    counts[0] += 1
    text = h5py.string_dtype()
    with h5py.File(folder / paul.FILE.name, "w") as file:
        file["data.debatched"] = counts
        file.create_dataset("data.debatched_rownames", data=PAUL_GENES, dtype=text)
        names = [f"W{i}" for i in range(len(clusters))]
        file.create_dataset("data.debatched_colnames", data=names, dtype=text)
        file["cluster.id"] = clusters[:, None].astype(float)
        informative = [g.split(";")[0] for g in PAUL_GENES[:-1]] + ["4-Sep"]
        file.create_dataset("info.genes_strings", data=informative, dtype=text)
    write_housekeeping(folder)


def write_mouse_brain(folder: Path, *, extra_genes: int = 0) -> None:
    """Write 200 nuclei of three broad and four fine types, ``Unk_1``, and some without a type."""
    rng = np.random.default_rng(1)
    names = np.array(["Ext_L1", "Ext_L2", "Inh_1", "Oligo_1", "Unk_1", "none"])
    y = np.repeat(np.arange(6), [50, 50, 40, 40, 12, 8])
    all_cells = dict.fromkeys(range(6), 1.0)
    rates = [
        {0: 0.8, 1: 0.8},  # 0: specific of Ext
        {0: 0.9},  # 1: specific of Ext_L1, in 45 % of Ext
        {2: 0.35},  # 2: specific of Inh, just above the threshold
        {2: 0.25},  # 3: in too few cells of Inh
        all_cells,  # 4: in all cells of all types
        {3: 0.9},  # 5: specific of Oligo, but has no symbol
        {3: 0.7, 0: 0.8, 1: 0.8, 2: 0.1, 4: 0.8},  # 6: in most cells of one of three broad types
        {},  # 7: in no cell
        *filler_rates(6),
        *[{3: 0.5} for _ in range(extra_genes)],
    ]
    symbols = ["Slc17a7", "Cux2", "Gad1", "Rare", "Malat1", None, "Mbp", "Empty"]
    symbols += FILLERS
    symbols += [f"More{i}" for i in range(extra_genes)]
    cells = [f"nucleus_{i}" for i in range(len(y))]
    adata = ad.AnnData(
        X=sp.csr_matrix(counts_with_rates(y, rates, rng).astype(np.float32)),
        obs=pd.DataFrame({"sample": "s1"}, index=cells),
        var=pd.DataFrame({"SYMBOL": symbols}, index=[f"ENSMUSG{i:04d}" for i in range(len(rates))]),
    )
    adata.write_h5ad(folder / mouse_brain.COUNTS.name)
    labelled = y < 5
    table = pd.DataFrame(
        {"sample": "s1", "annotation_1": names[y][labelled]}, index=np.array(cells)[labelled]
    )
    table.iloc[::-1].to_csv(folder / mouse_brain.ANNOTATION.name)


def write_ssv4(folder: Path, labels: pd.DataFrame | None = None) -> None:
    """Write the archive of the Allen Institute, and PERSIST's table unless ``labels`` is given."""
    rng = np.random.default_rng(2)
    if labels is None:
        types = ["Vip A", "Vip B", "Sst A", "Tiny"]
        y = np.repeat(np.arange(4), [30, 30, 40, 3])
        labels = pd.DataFrame(
            {
                "seq_name": [f"LS-{i:05d}" for i in range(len(y))],
                "cell_types_98": np.array(types)[y],
                "cell_types_50": "n1",
                "cell_types_25": "n1",
            }
        )
        labels.to_csv(folder / ssv4.LABELS.name, index=False)
    y = pd.factorize(labels["cell_types_98"])[0]
    all_cells = dict.fromkeys(range(y.max() + 1), 1.0)
    rates = [{0: 0.9}, {1: 0.9}, {2: 0.4}, all_cells, {0: 0.8}, {1: 0.8}, {2: 0.2}, {0: 0.5}]
    symbols = ["Vip", "Sncg", "Sst", "Actb", "Hspa8", "Keeper1", "Few", "Other"]
    rates, symbols = rates + filler_rates(y.max() + 1), symbols + FILLERS
    counts = counts_with_rates(y, rates, rng)
    # Five samples are not in PERSIST's table, and the columns have another order than its rows.
    samples = [f"F1S4_{i:06d}" for i in range(len(y) + 5)]
    counts = np.vstack([counts, rng.integers(0, 9, (5, len(rates)))])
    seq_names = [*labels["seq_name"], *[f"left_out_{i}" for i in range(5)]]
    order = rng.permutation(len(samples))
    entrez = [71661 + i for i in range(len(rates))]
    matrix = pd.DataFrame(counts.T[:, order], index=entrez, columns=np.array(samples)[order])
    genes = pd.DataFrame(
        {"gene_symbol": symbols, "gene_id": 1, "gene_entrez_id": entrez, "gene_name": "é"}
    )
    columns = pd.DataFrame(
        {
            "sample_name": samples,
            "seq_name": seq_names,
            "class": "GABAergic",
            "subclass": "Vip",
            "cluster": "Müller",
        }
    )
    with zipfile.ZipFile(folder / ssv4.ARCHIVE.name, "w", zipfile.ZIP_DEFLATED) as archive:
        prefix = "mouse_VISp_2018-06-14_"
        archive.writestr(f"{prefix}exon-matrix.csv", matrix.to_csv())
        archive.writestr(f"{prefix}genes-rows.csv", genes.to_csv(index=False))
        archive.writestr(
            f"{prefix}samples-columns.csv", columns.to_csv(index=False).encode("latin-1")
        )
    write_housekeeping(folder)


class Server:
    """Settings of a test server, and the requests that it received.

    The server closes each of the next ``cuts`` connections after ``cut_after`` bytes. ``ranges``:
    whether it supports range requests. ``version``: the ETag of all files. ``delay``: seconds
    between two blocks.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[tuple[str, str]] = []
        self.cuts, self.cut_after = 0, 0
        self.ranges, self.version = True, '"one"'
        self.delay = 0.0


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve the files of a folder at ``Server.address`` for as long as the block runs."""
    server = Server()
    pause = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server requires this name
            name = self.path.rsplit("/", 1)[-1]
            requested = self.headers.get("Range", "")
            server.requests.append((name, requested))
            if not (folder / name).is_file():
                self.send_error(404)
                return
            content, start = (folder / name).read_bytes(), 0
            match = re.fullmatch(r"bytes=(\d+)-", requested)
            if match and server.ranges and self.headers.get("If-Range") == server.version:
                start = int(match[1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", server.version)
            self.end_headers()
            body = content[start:]
            if server.cuts > 0:
                server.cuts -= 1
                body = body[: server.cut_after]
            for at in range(0, len(body), 16384):
                self.wfile.write(body[at : at + 16384])
                pause.wait(server.delay)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Ignore errors of connections that a killed client closed."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.address = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
