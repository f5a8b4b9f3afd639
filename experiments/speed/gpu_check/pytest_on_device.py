"""Pytest plugin: tests that make their tensors on the CPU make them on another device.

The environment variable ``GPU_CHECK_DEVICE`` names the device.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

DEVICE = os.environ["GPU_CHECK_DEVICE"]

if DEVICE != "cpu":
    _generator, _to_numpy = torch.Generator, torch.Tensor.numpy

    class Generator:
        """Makes torch's generators, on DEVICE unless another device is named.

        Not a subclass, which a CUDA graph refuses; not a function, because torch has it in types.
        """

        def __new__(cls, device: Any = None) -> Any:
            return _generator(device=device or DEVICE)

    def to_numpy(self: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        return _to_numpy(self.cpu(), *arguments, **options)

    torch.set_default_device(DEVICE)
    torch.Generator = Generator  # type: ignore[misc]
    # The tolerances of the tests are those of float32, not of TF32.
    torch.set_float32_matmul_precision = lambda precision: None
    torch.Tensor.numpy = to_numpy  # type: ignore[method-assign, assignment]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of whole trials: their fixture is in conftest.py, which is not loaded."""
    left_out = [item for item in items if "tiny_cells" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
