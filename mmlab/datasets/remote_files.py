"""Files that datasets are made from, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Downloaded files by their names; a file that could be done without may be missing.
Files = Mapping[str, Path]


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes
    ----------
    file
        Its name on this machine, and in a folder of files that were downloaded by hand.
    addresses
        Where it is; they are tried in turn.
    sha256
        Where it is known beforehand; else what is seen first is held to from then on.
    optional
        The dataset can be made without it, and then says so.
    """

    file: str
    addresses: tuple[str, ...]
    sha256: str | None = None
    optional: bool = False


_SMASH = (
    "https://gitlab.com/cvejic-group/smash/-/raw/HEAD/data/",
    "https://raw.githubusercontent.com/jeffreypullin/smash-fork/HEAD/data/",
)


def _smash_list(name: str, sha256: str) -> RemoteFile:
    return RemoteFile(name, tuple(place + name for place in _SMASH), sha256, optional=True)


#: Housekeeping genes of the mouse, by tissue, of the HRT Atlas (Hounkpe et al., Nucleic Acids
#: Research 2021), as the paper took them from SMaSH: a symbol a line.
BONE_MARROW = _smash_list(
    "house_keeping_genes_Mouse_bone_marrow.txt",
    "a1d2ec4ffab919eae4efff8fda59d15d4d1246e44cc717cfe72a337277a58d7b",
)
STEM_CELLS = _smash_list(
    "house_keeping_genes_Mouse_HSC.txt",
    "fe02d4f6eef1a81e97ab2cbc76b237dc792983aa2aa7be2f196164055881e383",
)


def housekeeping(files: Files) -> set[str]:
    """Symbols of the lists that are among the files."""
    paths = [files[source.file] for source in (BONE_MARROW, STEM_CELLS) if source.file in files]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.strip() for line in lines if line.strip()}
