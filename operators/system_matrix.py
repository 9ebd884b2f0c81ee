"""System matrix of ASTRA as a pair of torch CSR tensors, built once per geometry and cached up to a size limit."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import astra
import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.disk_cache import Arrays
from operators.geometry import MATRIX_COLUMNS
from operators.interrupt import checkpoint

BLOCK = 16_384
"""Columns of a part of the matrix: what they multiply, 1 MiB, stays in a core's cache. Twice as fast as the whole."""

CACHE_BYTES = 4 * 2**30
CSR = ("shape", "offsets", "columns", "values")
"""Arrays of a part in CSR form."""


@dataclass(frozen=True)
class SystemMatrix:
    """System matrix ``A`` and its transpose, each cut into parts of `BLOCK` columns in CSR form, float32."""

    matrix: tuple[Tensor, ...]
    transpose: tuple[Tensor, ...]
    nbytes: int

    def forward(self, x: Tensor, width: int = MATRIX_COLUMNS) -> Tensor:
        """Project ``(slices, pixels)`` to ``(slices, rays)``, `width` slices at once."""
        return _multiply(self.matrix, x, width)

    def adjoint(self, y: Tensor, width: int = MATRIX_COLUMNS) -> Tensor:
        """Back-project ``(slices, rays)`` to ``(slices, pixels)``, `width` slices at once."""
        return _multiply(self.transpose, y, width)

    def arrays(self) -> Arrays:
        """Arrays that `of_arrays` makes the same matrix of; they share its memory."""
        found: Arrays = {}
        for name in ("matrix", "transpose"):
            for index, part in enumerate(getattr(self, name)):
                parts = (torch.tensor(part.shape), part.crow_indices(), part.col_indices(), part.values())
                found |= {f"{name}-{index}-{what}": array.numpy() for what, array in zip(CSR, parts, strict=True)}
        return found

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> SystemMatrix:
        """Make the matrix of what `arrays` gave."""

        def parts(name: str) -> Iterator[Tensor]:
            for index in range(sum(key.startswith(f"{name}-") for key in arrays) // len(CSR)):
                shape, *csr = (arrays[f"{name}-{index}-{what}"] for what in CSR)
                yield _to_torch(*csr, shape=tuple(shape.tolist()))

        return cls.of(parts("matrix"), parts("transpose"))

    @classmethod
    def of(cls, matrix: Iterable[Tensor], transpose: Iterable[Tensor]) -> SystemMatrix:
        """Make a system matrix of its parts."""
        both = tuple(matrix), tuple(transpose)
        return cls(*both, sum(_nbytes(part) for parts in both for part in parts))


def _multiply(parts: tuple[Tensor, ...], x: Tensor, width: int) -> Tensor:
    rows, columns = parts[0].shape[0], sum(part.shape[1] for part in parts)
    out = torch.empty((len(x), rows), dtype=torch.float32)
    block = torch.zeros((columns, width), dtype=torch.float32)
    product = torch.empty((rows, width), dtype=torch.float32)
    for first in range(0, len(x), width):
        checkpoint()
        some = x[first : first + width]
        block[:, : len(some)] = some.T
        block[:, len(some) :] = 0.0
        product.zero_()
        for part, given in zip(parts, block.split(BLOCK), strict=True):
            product.addmm_(part, given)
        out[first : first + width] = product[:, : len(some)].T
    return out


def build(projector_id: int) -> SystemMatrix:
    """Read the matrix of an ASTRA projector; its elements are millimetres of ray inside each pixel."""
    matrix_id = astra.projector.matrix(projector_id)
    try:
        stored = astra.matrix.get(matrix_id)
    finally:
        astra.matrix.delete(matrix_id)
    forward = scipy.sparse.csr_matrix(
        (stored.data.astype(np.float32), stored.indices, stored.indptr), shape=stored.shape
    )
    del stored
    # Both are cut along the axis in which their elements lie one after another: any other cut would read the whole
    # matrix for each part.
    columns = forward.tocsc()
    matrix = [columns[:, first : first + BLOCK].tocsr() for first in range(0, columns.shape[1], BLOCK)]
    del columns
    transpose = [forward[first : first + BLOCK].T.tocsr() for first in range(0, forward.shape[0], BLOCK)]
    del forward
    for part in (*matrix, *transpose):
        part.sort_indices()
    return SystemMatrix.of(map(_csr, matrix), map(_csr, transpose))


def _csr(matrix: scipy.sparse.csr_matrix) -> Tensor:
    return _to_torch(matrix.indptr, matrix.indices, matrix.data, shape=matrix.shape)


def _to_torch(offsets: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], *, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        # torch announces its CSR support as beta at every first use.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(offsets),
            torch.from_numpy(columns),
            torch.from_numpy(values),
            size=shape,
            check_invariants=False,
        )


def _nbytes(part: Tensor) -> int:
    return sum(array.nbytes for array in (part.crow_indices(), part.col_indices(), part.values()))


class MatrixCache:
    """Least-recently-used cache of matrices, up to a number of bytes; safe to share between threads."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, SystemMatrix] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], SystemMatrix]) -> SystemMatrix:
        """Matrix of `key`, from the cache or made now."""
        with self._lock:
            if key not in self._held:
                self._held[key] = make()
            self._held.move_to_end(key)
            while len(self._held) > 1 and sum(m.nbytes for m in self._held.values()) > self.limit_bytes:
                self._held.popitem(last=False)
            return self._held[key]


cache = MatrixCache()
