"""Compute precision of networks on a CPU: bfloat16 where the processor multiplies it natively, else float32.

A processor without such instructions emulates bfloat16, up to a hundred times slower than it computes in float32.
"""

from __future__ import annotations

import os
from functools import cache

import torch

EMULATING = ("AVX512_CORE", "AVX512_CORE_VNNI")
"""Instruction sets with which oneDNN accepts bfloat16 but emulates it; with lesser ones it refuses it."""
WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE")
"""Instruction sets with which oneDNN does not use AVX-512 VNNI."""


def compute_dtype() -> torch.dtype:
    """Data type of the network's weights and activations on this machine."""
    return _chosen()[0]


def name() -> str:
    """Data type in words, for tables and reports."""
    return str(compute_dtype()).removeprefix("torch.")


def reason() -> str:
    """Reason for this data type."""
    return _chosen()[1]


def lacks_int8() -> str | None:
    """Reason why products of 8-bit integers are not computed natively here; None where they are."""
    limit = _limit()
    if not torch.cpu._is_vnni_supported():
        return "the processor has no AVX-512 VNNI"
    return f"ONEDNN_MAX_CPU_ISA={limit} forbids AVX-512 VNNI" if limit in WITHOUT_VNNI else None


def autocast(*, enabled: bool = True) -> torch.autocast:
    """Context (autocast) in which float32 products are computed in `compute_dtype`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled and compute_dtype() is torch.bfloat16)


def _limit() -> str:
    """Instruction set that oneDNN is limited to by the environment; empty without a limit."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()


@cache
def _chosen() -> tuple[torch.dtype, str]:
    if torch.cpu._is_amx_tile_supported():
        instructions = "AMX"
    elif torch.cpu._is_avx512_bf16_supported():
        instructions = "AVX-512 BF16"
    else:
        return torch.float32, "the processor has neither AVX-512 BF16 nor AMX"
    # Those calls know the processor only; oneDNN, which torch and OpenVINO compute with, can be told to use less of it.
    limit = _limit()
    if limit in EMULATING or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        limited = f"ONEDNN_MAX_CPU_ISA={limit} forbids it" if limit else "this torch is built without oneDNN"
        return torch.float32, f"the processor has {instructions}, but {limited}"
    return torch.bfloat16, f"the processor has {instructions}"
