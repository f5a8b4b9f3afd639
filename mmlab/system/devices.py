"""Torch devices and their capabilities."""

from __future__ import annotations

from collections.abc import Callable

from mmlab.errors import UserError


def resolve_device(name: str) -> str:
    """Return the name of a torch device; ``auto`` is CUDA if available, otherwise the CPU.

    Raises
    ------
    UserError
        The name is not a torch device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise UserError(f"device {name!r} is not a torch device; use auto, cpu or cuda.") from error


def device_title(device: str) -> str:
    """Return ``cpu``, or the model name of a CUDA device."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def has_fast_bfloat16(device: str) -> bool:
    """Return whether a device multiplies matrices faster in bfloat16 than in float32."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch have no get_capabilities.
    query: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = query()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
