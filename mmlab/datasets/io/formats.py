"""Recognise other file formats, and say how each is converted to ``.h5ad``."""

from __future__ import annotations

import difflib
import gzip
import zlib
from pathlib import Path

import h5py

from mmlab.datasets.io.hdf5 import read_attribute

#: Bytes of a text file from which its delimiter is inferred.
_HEAD = 2**16
#: Largest number of files that a message names.
_MAX_FILES = 3
_TEXT = (".csv", ".tsv", ".tab", ".txt")
_R_FILES = (".rds", ".rda", ".rdata", ".robj")
_PACKED = (".gz", ".zip", ".tar", ".bz2", ".xz", ".7z", ".tgz")
#: Descriptions of other file formats, by the first bytes of the file.
_MAGIC = {
    b"\x1f\x8b": "begins like a gzip file: unpack it first",
    b"PK": "begins like a zip file: unpack it first",
    b"%%MatrixMarket": "is a MatrixMarket file: read it with scanpy.read_mtx, then write_h5ad",
}
#: Smallest similarity of a name that is suggested, 0 to 1.
_SIMILAR = 0.75
_ADD_TYPES = "; the cell types have to be a column of adata.obs"


def describe_missing(path: Path) -> str:
    """Return that a file is missing, with similar names in its folder; or that a link is broken."""
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which does not exist; correct the link"
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"it does not exist, nor does the folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    # Equal suffixes make no two names similar.
    stems = {Path(name).stem.lower() for name in names}
    near_stems = difflib.get_close_matches(path.stem.lower(), stems, _MAX_FILES, _SIMILAR)
    near = [name for name in names if Path(name).stem.lower() in near_stems][:_MAX_FILES]
    if near:
        return f"it does not exist; similar names in its folder: {', '.join(near)}"
    others = [name for name in names if name.endswith((".h5ad", ".zarr"))][:_MAX_FILES]
    return "it does not exist; its folder has " + (", ".join(others) or "no .h5ad file")


def describe_folder(path: Path) -> str:
    """Return what a folder that is no zarr store contains, and how it is converted."""
    matrices = sorted(path.glob("*matrix.mtx*"))
    if matrices:
        return f"it is a folder of 10x files; {_convert_10x_folder(matrices[0])}"
    files = [entry.name for entry in sorted(path.iterdir()) if entry.suffix in (".h5ad", ".zarr")]
    hint = f"; it has {', '.join(files[:_MAX_FILES])}" if files else ""
    return f"it is a folder; pass the path of an .h5ad file or of an AnnData .zarr{hint}"


def describe_file(path: Path, head: bytes) -> str:
    """Return what a file that is not HDF5 contains, and how it is converted.

    ``head`` has its first bytes.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((s for s in reversed(suffixes) if s not in (".gz", ".bz2")), "")
    if kind in _R_FILES:
        return f"it is a file of R; {_convert_r(path, kind)}"
    if kind == ".mtx":
        return f"it is a MatrixMarket file; {_convert_mtx(path)}"
    if kind in _TEXT:
        return f"it is a text file; {_convert_text(path)}"
    if suffixes and suffixes[-1] in _PACKED:
        return f"it is packed; unpack it first and pass the {kind or '.h5ad'} file in it"
    found = next((text for start, text in _MAGIC.items() if head.startswith(start)), None)
    found = found or f"it begins with {head[:8]!r}"
    return f"it is not an HDF5 file, as every .h5ad is: {found}"


def describe_hdf5(file: h5py.File) -> str | None:
    """Return what an HDF5 file contains that is not ``.h5ad``; None if it is ``.h5ad``."""
    path = Path(file.filename)
    if read_attribute(file, "encoding-type") == "MuData" or isinstance(file.get("mod"), h5py.Group):
        names = list(file["mod"]) if "mod" in file else []
        name = "rna" if "rna" in names or not names else names[0]
        code = f'import mudata; adata = mudata.read_h5mu({str(path)!r})["{name}"]'
        return (
            f"it is a MuData file with the modalities {', '.join(names) or 'none'}; "
            + _in_python(code, path)
        )
    missing = [name for name in ("obs", "var") if name not in file]
    if not missing:
        return None
    if "row_attrs" in file and "col_attrs" in file:
        code = f"import anndata; adata = anndata.io.read_loom({str(path)!r}, X_name='')"
        return f"it is a loom file; after `pip install loompy`, {_in_python(code, path)}"
    if any(_is_10x(item) for item in file.values()):
        code = f"import scanpy; adata = scanpy.read_10x_h5({str(path)!r})"
        return f"it looks like a 10x file; {_in_python(code, path, unique=True)}"
    if "barcode_idx" in file:
        return "it is a 10x file of molecules; pass filtered_feature_bc_matrix.h5 of the same run"
    if "assays" in file and "meta.data" in file:
        return (
            f"it is a file of SeuratDisk; convert it in R: "
            f'`SeuratDisk::Convert("{path}", dest = "h5ad")`'
        )
    content = ", ".join(sorted(file)) or "nothing"
    return f"it is HDF5 but not .h5ad: it lacks {' and '.join(missing)} and contains {content}"


def _is_10x(item: object) -> bool:
    """Whether an object is the matrix of a 10x file (Cell Ranger 2: one group per genome)."""
    return isinstance(item, h5py.Group) and "barcodes" in item


def _convert_10x_folder(matrix: Path) -> str:
    folder, prefix = matrix.parent, matrix.name.split("matrix.mtx")[0]
    options = f", prefix={prefix!r}" if prefix else ""
    code = f"import scanpy; adata = scanpy.read_10x_mtx({str(folder)!r}{options})"
    is_plain = (folder / f"{prefix}features.tsv").is_file() and matrix.suffix == ".mtx"
    first = f"pack its files with `gzip {folder}/*`, then " if is_plain else ""
    return first + _in_python(code, folder / folder.name, unique=True)


def _convert_mtx(path: Path) -> str:
    prefix = path.name.split("matrix.mtx")[0]
    if any(path.parent.glob(f"{prefix}barcodes.tsv*")) and "matrix.mtx" in path.name:
        return "its folder has the names; " + _convert_10x_folder(path)
    code = (
        f"import scanpy; adata = scanpy.read_mtx({str(path)!r}).T; adata.obs_names, "
        "adata.var_names = cell_names, gene_names"
    )
    return _in_python(code, path) + "; leave out .T if its rows are cells"


def _convert_text(path: Path) -> str:
    code = (
        f"import scanpy; adata = scanpy.read_csv({str(path)!r}, delimiter={_delimiter(path)!r}).T"
    )
    return _in_python(code, path) + "; leave out .T if its rows are cells"


def _convert_r(path: Path, kind: str) -> str:
    read = f'readRDS("{path}")' if kind == ".rds" else f'get(load("{path}"))'
    return (
        "convert it in R: `zellkonverter::writeH5AD(Seurat::as.SingleCellExperiment"
        f'({read}), "{_target(path)}", X_name = "counts")`; leave out as.SingleCellExperiment if '
        "it is not a Seurat object"
    )


def _in_python(code: str, path: Path, *, unique: bool = False) -> str:
    names = "adata.var_names_make_unique(); " if unique else ""
    write = f"adata.write_h5ad({_target(path)!r})"
    return f"convert it in Python: `{code}; {names}{write}`{_ADD_TYPES}"


def _target(path: Path) -> str:
    """Return the path of the converted file: another suffix, in the same folder."""
    name = path.name
    while Path(name).suffix.lower() in (
        *_TEXT,
        *_R_FILES,
        *_PACKED,
        ".mtx",
        ".h5",
        ".h5mu",
        ".loom",
    ):
        name = Path(name).stem
    return str(path.with_name(f"{name}.h5ad"))


def _delimiter(path: Path) -> str:
    """Return the most frequent delimiter of the first line, by default a comma."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            line = stream.read(_HEAD).splitlines()[:1]
    except (OSError, EOFError, zlib.error):
        line = []
    text = line[0].decode(errors="replace") if line else ""
    return max((",", "\t", ";", " "), key=text.count)
