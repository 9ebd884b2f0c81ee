"""Compile a network's body with OpenVINO for the CPU, which fuses element-wise operations into the convolutions.

Its results do not depend on the batch: a slice has the same bits alone and among others (tested).
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from operators import disk_cache
from recon.priors import int8, precision
from recon.priors import network as network_code
from recon.priors.network import Denoiser

# OpenVINO reports its use to its makers unless this module is missing. Patients' data are computed on here: no word
# leaves this process.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402

_HINTS = {torch.bfloat16: "bf16", torch.float32: "f32"}


class _Body(nn.Module):
    """Module to trace: the body alone, without the parts that have to stay in float32."""

    def __init__(self, network: Denoiser) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        return self.network.body(x, features)


def compiled(
    network: Denoiser, weights: str | None = None, ranges: int8.Ranges | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """`network.body` for one noise level and images of any number and size, in the type of `recon.priors.precision`.

    Parameters
    ----------
    network
        In float32, evaluation mode.
    weights
        Text that tells the network and its weights from all others: what is compiled is then kept on disk.
    ranges
        Ranges of the inputs of its blocks, which then compute in 8-bit integers; see `recon.priors.int8`.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision.compute_dtype()],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # several worker processes would all pin to the same cores
    }
    core = openvino.Core()

    def key() -> dict[str, Any]:
        processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        versions = {"openvino": openvino.get_version(), "torch": torch.__version__}
        code = disk_cache.digest_of(sys.modules[__name__], network_code, int8)
        return {
            "weights": weights,
            "ranges": ranges,
            "settings": settings,
            "processor": processor,
            "code": code,
            **versions,
        }

    def build() -> openvino.CompiledModel:
        return core.compile_model(_converted(network, ranges), "CPU", settings)

    def load(arrays: disk_cache.Arrays) -> openvino.CompiledModel:
        return core.import_model(io.BytesIO(arrays["model"].tobytes()), "CPU", settings)

    executable = build() if weights is None else disk_cache.kept("network", key, build, _exported, load)

    def body(x: Tensor, features: Tensor) -> Tensor:
        found = executable([x.contiguous().numpy(), features.contiguous().numpy()])
        return torch.from_numpy(found[0])

    return body


def _converted(network: Denoiser, ranges: int8.Ranges | None) -> openvino.Model:
    """Model of OpenVINO of a network's body, for any number and size of images."""
    body = _Body(network if ranges is None else int8.rounded(network, ranges))
    side, features = network.multiple, network.known
    example = (torch.zeros(1, network.stem.in_channels, side, side), torch.zeros(1, features))
    with warnings.catch_warnings():
        # The trace is of one noise level for the whole batch, and meant to be.
        warnings.filterwarnings("ignore", message="Using len to get tensor shape")
        # Checking the trace takes more than half of the time that a network needs to start: tests do it once.
        traced = torch.jit.trace(body, example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
    shapes = ([-1, network.stem.in_channels, -1, -1], [1, features])
    model.reshape({index: openvino.PartialShape(shape) for index, shape in enumerate(shapes)})
    return model


def _exported(executable: openvino.CompiledModel) -> disk_cache.Arrays:
    """Compiled network as bytes."""
    return {"model": np.frombuffer(executable.export_model().getbuffer(), np.uint8)}
