"""Files to download, their URLs and checksums; lists of housekeeping genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Paths of downloaded files by name; optional files may be missing.
Files = Mapping[str, Path]


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes
    ----------
    name
        File name in the downloads folder, and in a folder of files that were downloaded by hand.
    urls
        URLs, tried in this order.
    sha256
        Expected checksum. If None, the checksum of the first download is expected of later ones.
    optional
        The dataset can be created without it; a note of the dataset then says so.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    optional: bool = False


_SMASH_URLS = (
    "https://gitlab.com/cvejic-group/smash/-/raw/HEAD/data/",
    "https://raw.githubusercontent.com/jeffreypullin/smash-fork/HEAD/data/",
)


def _smash_list(name: str, sha256: str) -> RemoteFile:
    return RemoteFile(name, tuple(url + name for url in _SMASH_URLS), sha256, optional=True)


#: Mouse housekeeping genes by tissue from the HRT Atlas (Hounkpe et al., Nucleic Acids Research
#: 2021), in the files of SMaSH that the paper used: one symbol per line.
BONE_MARROW = _smash_list(
    "house_keeping_genes_Mouse_bone_marrow.txt",
    "a1d2ec4ffab919eae4efff8fda59d15d4d1246e44cc717cfe72a337277a58d7b",
)
STEM_CELLS = _smash_list(
    "house_keeping_genes_Mouse_HSC.txt",
    "fe02d4f6eef1a81e97ab2cbc76b237dc792983aa2aa7be2f196164055881e383",
)


def housekeeping_genes(files: Files) -> set[str]:
    """Return the symbols of all housekeeping lists in ``files``."""
    paths = [files[source.name] for source in (BONE_MARROW, STEM_CELLS) if source.name in files]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.strip() for line in lines if line.strip()}
