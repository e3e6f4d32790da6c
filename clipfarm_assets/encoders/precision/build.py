"""What a numeric result may depend on beside its input: this machine and its libraries.

Told without importing torch, so that a run with nothing to do stays light.
"""

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from clipfarm_assets.encoders.config import Device, EncoderConfig

_LIBRARIES: Final = ("clipfarm-assets", "torch", "transformers", "sentence-transformers")
# Whatever chooses other kernels or another precision inside the libraries.
_VARIABLE: Final = re.compile(
    r"(ATEN_CPU_CAPABILITY|MKL_CBWR|MKL_ENABLE_INSTRUCTIONS|(ONEDNN|DNNL)_\w+|NVIDIA_TF32_OVERRIDE"
    r"|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE)"
)
# Matrix and vector units, as x86's `flags` and Arm's `Features` name them.
_UNIT: Final = re.compile(r"(avx|amx|fma|bf16|f16c|asimd|sve|sme|i8mm)\w*")
# One of these is there wherever Linux has an accelerator that torch could take.
_ACCELERATOR_NODES: Final = (
    "/dev/nvidiactl",
    "/dev/nvhost-ctrl-gpu",
    "/dev/nvgpu",
    "/dev/kfd",
    "/dev/dxg",
)
_CPU_ONLY: Final = "+cpu"
"""Ending of torch's version where it was built without accelerators."""


def build_fingerprint(
    device: Device, environ: Mapping[str, str] | None = None, root: Path = Path("/")
) -> str | None:
    """Libraries, processor and device in one readable line; None where only torch could tell.

    Torch is asked if it is loaded, and never loaded for this. Two builds of the same line may
    still differ in a driver; two of different lines may still compute the same.

    Args:
        device: As configured.
        environ: Environment variables; those of this process by default.
        root: Where ``/proc`` and ``/dev`` lie.
    """
    kind = _device_kind(device, root)
    if kind is None:
        return None
    name = "" if kind != "cuda" else _gpu_name(root)
    if name is None:
        return None
    variables = sorted(
        f"{key}={value}"
        for key, value in (os.environ if environ is None else environ).items()
        if _VARIABLE.fullmatch(key)
    )
    cpu, units = _processor(root)
    return ", ".join(
        (
            *(f"{library} {version(library)}" for library in _LIBRARIES),
            f"{platform.system()} {platform.machine()}",
            f"{cpu} (units {hashlib.sha256(units.encode()).hexdigest()[:8]})",
            f"on {kind} {name}".rstrip(),
            *variables,
        )
    )


def _device_kind(device: Device, root: Path) -> str | None:
    """``cpu``, ``cuda`` or ``mps``; None if `device` is auto and only torch could tell."""
    if device != "auto":
        return device
    if "torch" in sys.modules:
        from clipfarm_assets.encoders.loading import choose_device

        return str(choose_device(EncoderConfig(device=device)).type)
    if platform.system() != "Linux":
        return None  # mps, perhaps
    there = any((root / node.lstrip("/")).exists() for node in _ACCELERATOR_NODES)
    return None if there and not version("torch").endswith(_CPU_ONLY) else "cpu"


def _gpu_name(root: Path) -> str | None:
    """The kind of GPU in use; None if neither the driver nor a loaded torch tells."""
    kinds = {
        line.partition(":")[2].strip()
        for file in (root / "proc/driver/nvidia/gpus").glob("*/information")
        for line in _lines(file)
        if line.startswith("Model:")
    }
    if len(kinds) == 1:
        return kinds.pop()
    if "torch" not in sys.modules:
        return None
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def _processor(root: Path) -> tuple[str, str]:
    """The processor's name, and its vector and matrix units, sorted."""
    name, units = platform.processor() or platform.machine(), set[str]()
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in {"flags", "Features"}:
            units.update(flag for flag in value.split() if _UNIT.fullmatch(flag))
        elif not key and units:
            break  # the next core says the same
    return name, " ".join(sorted(units))


def _lines(file: Path) -> Iterator[str]:
    try:
        yield from file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # another system, which has no such file
