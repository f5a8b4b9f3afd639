"""What a machine says of itself as a node of a cluster."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

import mmlab
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE, cache_folder
from mmlab.errors import UserError
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.system.files import existing_folder, require_folder
from mmlab.system.memory import available_memory

#: Bytes that a node must be able to write to its temporary folder.
_N_BYTES = 10_000_000


@dataclass(frozen=True)
class NodeFacts:
    """Versions, space and devices of a node.

    Attributes
    ----------
    mmlab, protocol, python
        Versions of mmlab, of its protocol and of Python.
    gpus
        Names of the GPUs on which torch could compute.
    gpu_error
        Why torch could not compute on another one; empty if it could on all.
    memory_gb
        Free memory.
    cache, cache_error, disk_gb
        Folder of cached datasets, why it cannot be written (empty if it can), and its free space.
    time
        The machine's clock, in seconds since 1970.
    """

    mmlab: str
    protocol: int
    python: str
    gpus: list[str]
    gpu_error: str
    memory_gb: float
    cache: str
    cache_error: str
    disk_gb: float
    time: float


def node_facts() -> dict[str, Any]:
    """Return the fields of :class:`NodeFacts` of this machine.

    Raises
    ------
    OSError
        The temporary folder cannot be written.
    """
    with tempfile.TemporaryFile() as file:
        file.write(bytes(_N_BYTES))
    cache, cache_error = cache_folder(), ""
    try:
        require_folder(cache, FOLDER_VARIABLE)
    except UserError as error:
        cache_error = str(error).rstrip(".")
    gpus, gpu_error = _usable_gpus()
    facts = NodeFacts(
        mmlab=mmlab.__version__,
        protocol=PROTOCOL_NUMBER,
        python=platform.python_version(),
        gpus=gpus,
        gpu_error=gpu_error,
        memory_gb=available_memory() / 1e9,
        cache=str(cache),
        cache_error=cache_error,
        disk_gb=shutil.disk_usage(existing_folder(cache)).free / 1e9,
        time=time.time(),
    )
    return asdict(facts)


def _usable_gpus() -> tuple[list[str], str]:
    """Return the GPUs on which torch computes, and why it does not on another one."""
    names, problem = [], ""
    for index in range(torch.cuda.device_count()):
        try:
            torch.ones(1, device=f"cuda:{index}").sum().item()
            names.append(torch.cuda.get_device_name(index))
        except RuntimeError as error:
            problem = str(error).splitlines()[0]
    return names, problem
