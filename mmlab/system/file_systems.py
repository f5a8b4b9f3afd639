"""File systems on which several machines, or a machine and its host, see the same files."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

#: Types as the operating systems name them. All that FUSE serves counts, such as sshfs.
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs"),
    *("pvfs2", "orangefs", "panfs", "wekafs", "dvs", "gfs2", "ocfs2", "coda", "ncpfs"),
    *("9p", "virtiofs", "vboxsf", "prl_fs", "drvfs", "afpfs", "webdav", "fuse"),
}


def network_file_system(path: Path) -> str:
    """Return the type of the network file system that a path is on; empty on a local one."""
    real = Path(os.path.realpath(path))
    kind, depth = "", -1
    for mount in psutil.disk_partitions(all=True):
        point = Path(mount.mountpoint)
        # Of two file systems with the same mount point, the later one hides the earlier one.
        if real.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = mount.fstype, len(point.parts)
    return kind if kind in _NETWORK or kind.startswith("fuse.") else ""
