"""Devices that torch computes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmlab.errors import UserError

if TYPE_CHECKING:
    pass


def resolve_device(name: str) -> str:
    """Device that torch knows; ``auto`` is CUDA where there is one.

    Raises
    ------
    UserError
        torch knows no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise UserError(
            f"device {name!r} is not one that torch knows (auto, cpu, cuda)."
        ) from error


def has_fast_bfloat16(device: str) -> bool:
    """Whether a device multiplies matrices in bfloat16 faster than in float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch do not tell.
    tell: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    can = tell()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
