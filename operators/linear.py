"""Linear operators on batches of slices: adjoint, autograd, norm, composition, conjugate gradients.

A measurement is ``y = A x``. Every operator acts on the last axes and is batched in the first one. What is batched are
slices, which never mix unless an operator's docstring says so (`operators.differences`); or, where rays cross slices as
those of a cone beam do, whole volumes. Then `LinearOperator.whole_volume` is true, the domain is
``Space((slices, rows, cols))``, and a measurement is a batch of one element. "Per slice" reads "per batch element"
there: norms, noise, step sizes of conjugate gradients and intensity scales are those of the volume, while spectra and
priors work on its slices, which are its last two axes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, overload

import torch
from torch import Tensor

from operators.errors import InputError
from operators.geometry import SamplingPattern
from operators.interrupt import checkpoint

INITIAL_ITERATIONS = 5
"""Number of conjugate gradient iterations for a quick classical image."""


@dataclass(frozen=True)
class Space:
    """Vector space of one slice's array: shape without the batch axis, and whether it is complex."""

    shape: tuple[int, ...]
    complex: bool = False

    def check(self, x: Tensor, name: str) -> None:
        """Raise `InputError` unless `x` is a batch of elements of this space."""
        expected = f"(slices, {', '.join(map(str, self.shape))})"
        if x.ndim != len(self.shape) + 1 or tuple(x.shape[1:]) != self.shape:
            raise InputError(f"shape {tuple(x.shape)}, expected {expected}", field=name)
        allowed = (torch.complex64, torch.complex128) if self.complex else (torch.float32, torch.float64)
        if x.dtype not in allowed:
            names = " or ".join(str(d).removeprefix("torch.") for d in allowed)
            raise InputError(f"dtype {str(x.dtype).removeprefix('torch.')}, expected {names}", field=name)


class LinearOperator(ABC):
    """Linear operator ``A`` with its exact adjoint, differentiable by using that adjoint as backward.

    A new operator implements `_forward` and `_adjoint` on plain tensors and hands `domain` and `range`
    to ``super().__init__``; `dot_product_error` then tells whether the two belong together.
    """

    slices: int | None = None
    """Number of slices, if the operator differs between slices; None otherwise."""
    factors: tuple[float, float] | None = None
    """Super-resolution factors along rows and along columns: how many times finer images are than the measurement."""
    whole_volume: bool = False
    """Whether a batch element is a whole volume ``(slices, rows, cols)``, and not a slice."""
    images: int = 1
    """Number of images that a slice's unknowns are, one below the other along the rows."""

    def __init__(self, domain: Space, range: Space) -> None:
        self.domain, self.range = domain, range

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """``A x``: ``(slices, *domain.shape)`` to ``(slices, *range.shape)``, in the dtype of `x`."""
        self.domain.check(x, "x")
        return cast(Tensor, _WithAdjoint.apply(x, self._forward, self._adjoint))  # type: ignore[no-untyped-call]

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: ``(slices, *range.shape)`` to ``(slices, *domain.shape)``, in the dtype of `y`."""
        self.range.check(y, "y")
        return cast(Tensor, _WithAdjoint.apply(y, self._adjoint, self._forward))  # type: ignore[no-untyped-call]

    def normal(self, x: Tensor) -> Tensor:
        """``A^H A x``."""
        self.domain.check(x, "x")
        return cast(Tensor, _WithAdjoint.apply(x, self._normal, self._normal))  # type: ignore[no-untyped-call]

    def _normal(self, x: Tensor) -> Tensor:
        """Apply ``A^H A``; operators override it where that is cheaper than its parts."""
        return self._adjoint(self._forward(x))

    __call__ = forward

    def part(self, first: int, last: int) -> LinearOperator:
        """Operator of slices ``[first, last)``; itself if all slices are alike."""
        return self if self.slices is None else self._part(first, last)

    def _part(self, first: int, last: int) -> LinearOperator:
        raise InputError(f"{type(self).__name__} has no part {first}:{last}", field="operator")

    def initial_image(self, data: Tensor) -> Tensor:
        """Initial image: quick classical reconstruction, from which solvers start and which sets the intensity scale.

        A few conjugate gradient iterations, unless an operator has a better way.
        """
        return conjugate_gradient(self.normal, self.adjoint(data), None, INITIAL_ITERATIONS)

    @property
    def refinement(self) -> float | None:
        """Super-resolution factor: the larger one of `factors`; None for other scans."""
        return None if self.factors is None else max(self.factors)

    @property
    def undersampling(self) -> float:
        """Undersampling factor: unknowns per slice over samples per slice."""
        return math.prod(self.domain.shape) / math.prod(self.range.shape)

    @property
    def measured_share(self) -> Tensor:
        """Fraction of each slice's entries that were sampled, ``(slices,)`` or ``(1,)``; the others are zero."""
        return torch.ones(1)

    @property
    def sampling_pattern(self) -> SamplingPattern:
        """Pattern in which samples are spread."""
        return "full"

    @property
    def scan(self) -> str:
        """Key of the scan for frozen noise: noise found for one scan applies to others with the same key."""
        return type(self).__name__

    def another(self, index: int) -> LinearOperator:  # noqa: ARG002
        """Return the `index`-th comparable scan, which misses other parts of an image; `InputError` if none exists."""
        raise InputError(
            "there is no other scan of this kind to compare with",
            field="output.uncertainty",
            remedy="leave it out; it is there for CT and Cartesian MRI",
        )

    def middle(self, slices: int) -> Excerpt:
        """Scan of about that many slices of a whole volume, by which methods are compared; all of it by default."""
        del slices
        return Excerpt(self, lambda y: y, slice(0, self.domain.shape[0]))

    @property
    def folds(self) -> int:
        """Number of ways to withhold some of the samples, of which each has others; 0 if there is none."""
        return 0

    def withheld(self, fold: int) -> Withheld:
        """Withhold the samples of one of `folds` folds; `InputError` if there are none to spare."""
        raise InputError(
            f"there are no samples to withhold for fold {fold}",
            field="method.name",
            remedy="name the method that is to reconstruct",
        )

    def noise(self, slices: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise of the samples of a measurement, per real channel."""
        return random_element(self.range, slices, generator)

    def spectrum(self) -> Tensor | None:
        """Approximate eigenvalues of ``A^H A``; None if it is not like a convolution.

        On the grid of `torch.fft.rfft2` for real images, on that of `torch.fft.fft2` for complex ones.
        They precondition conjugate gradients, see `operators.preconditioner`.
        """
        return None

    def balance(self) -> Tensor | None:
        """Diagonal ``d`` of about ``A^H A = diag(d) C diag(d)``, with `spectrum` that of ``C``; None if it is 1."""
        return None

    def support(self) -> Tensor | None:
        """Pixels that the operator acts on, ``(slices, *domain.shape)`` boolean; None if these are all."""
        return None

    @cached_property
    def norms(self) -> Tensor:
        """Largest singular value in each slice, ``(slices,)``, or ``(1,)`` if all slices are alike.

        By power iteration on ``A^H A`` (cached; relative error below 1e-3). A slice's value does not depend on the
        others. It is 1 in a slice that measures nothing, so that it can be divided by.

        Raises
        ------
        InputError
            If slices are alike and nothing is measured.
        """
        generator = torch.Generator().manual_seed(0)
        x = random_element(self.domain, 1, generator).repeat(self.slices or 1, *(1,) * len(self.domain.shape))
        found, settled = torch.zeros(len(x)), torch.zeros(len(x), dtype=torch.bool)
        for _ in range(200):
            x = self.normal(x / each_slice(slice_dot(x, x).sqrt().clamp(min=1e-38), x))
            value = slice_dot(x, x).sqrt()
            found, settled = torch.where(settled, found, value), settled | ((value - found).abs() <= 1e-5 * value)
            if bool(settled.all()):
                break
        if self.slices is None and not bool(found > 0):
            raise InputError("the operator is zero: it measures nothing", field="acquisition")
        return torch.where(found > 0, found, 1.0).sqrt()

    @property
    def H(self) -> LinearOperator:  # noqa: N802 - the adjoint's usual symbol
        """The adjoint as an operator."""
        return Adjoint(self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other)

    def __mul__(self, factor: float | Tensor) -> LinearOperator:
        return Scaled(self, factor)

    __rmul__ = __mul__

    def normalized(self) -> LinearOperator:
        """Operator divided by its norm in each slice, so that data weights mean the same for every operator."""
        return Scaled(self, 1.0 / self.norms)


@dataclass(frozen=True)
class Excerpt:
    """Scan of some slices of a whole volume, which stands for all of it.

    Parameters
    ----------
    operator
        Operator of these slices alone.
    samples
        Takes its samples out of all of them ``(1, *range)``.
    slices
        The slices.
    """

    operator: LinearOperator
    samples: Callable[[Tensor], Tensor]
    slices: slice


@dataclass(frozen=True)
class Withheld:
    """Scan without some of its samples, which judge what is reconstructed from the others.

    Parameters
    ----------
    kept, held
        Operators of the samples that stay, and of those that are withheld.
    keep, hold
        Take the ones and the others out of all samples ``(slices, *range)``.
    spectra
        Maps residuals ``(slices, *held.range)`` to numbers ``(slices, units, n)`` whose sum of squares estimates the
        squared error of the image, up to a factor and the noise. A unit errs independently of others: a view, a line.
    """

    kept: LinearOperator
    held: LinearOperator
    keep: Callable[[Tensor], Tensor]
    hold: Callable[[Tensor], Tensor]
    spectra: Callable[[Tensor], Tensor]


class _WithAdjoint(torch.autograd.Function):
    """Autograd function that applies an operator and back-propagates with its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.pair = (back, apply)
        return apply(x.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return cast(Tensor, _WithAdjoint.apply(grads[0], *ctx.pair)), None, None  # type: ignore[no-untyped-call]


class Adjoint(LinearOperator):
    """Adjoint operator ``A^H``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator, self.slices = operator, operator.slices
        self.whole_volume = operator.whole_volume

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The operator itself."""
        return self.operator


class Composition(LinearOperator):
    """Composed operator ``A B``."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.domain != inner.range:
            raise InputError(f"cannot compose: {inner.range} does not fit {outer.domain}", field="operator")
        super().__init__(inner.domain, outer.range)
        self.outer, self.inner, self.slices = outer, inner, outer.slices or inner.slices
        self.whole_volume = outer.whole_volume or inner.whole_volume

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))


class Scaled(LinearOperator):
    """Scaled operator ``factor A`` with a real factor, one number or one per slice ``(slices,)``."""

    def __init__(self, operator: LinearOperator, factor: float | Tensor) -> None:
        super().__init__(operator.domain, operator.range)
        self.operator, self.factor, self.slices = operator, factor, operator.slices
        self.whole_volume = operator.whole_volume

    def spectrum(self) -> Tensor | None:
        """Spectrum of the unscaled operator, scaled."""
        inner = self.operator.spectrum()
        factor = self.factor.reshape(-1, 1, 1) if isinstance(self.factor, Tensor) else self.factor
        return None if inner is None else inner * factor**2

    def balance(self) -> Tensor | None:
        """Diagonal of the unscaled operator; the factor is in the spectrum."""
        return self.operator.balance()

    def support(self) -> Tensor | None:
        """Support of the unscaled operator."""
        return self.operator.support()

    def _normal(self, x: Tensor) -> Tensor:
        return self.operator._normal(x) * each_slice(self.factor, x) ** 2

    def _forward(self, x: Tensor) -> Tensor:
        y = self.operator._forward(x)
        return y * each_slice(self.factor, y)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = self.operator._adjoint(y)
        return x * each_slice(self.factor, x)


@overload
def each_slice(values: Tensor, like: Tensor) -> Tensor: ...
@overload
def each_slice(values: float | Tensor, like: Tensor) -> float | Tensor: ...
def each_slice(values: float | Tensor, like: Tensor) -> float | Tensor:
    """One number, or one per slice ``(slices,)`` shaped to multiply ``(slices, ...)`` in the precision of `like`."""
    if not isinstance(values, Tensor):
        return values
    return values.reshape(-1, *(1,) * (like.ndim - 1)).to(like.real.dtype)


def random_element(space: Space, slices: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal batch of `space`; `dtype` is the real dtype (float32 or float64)."""
    shape = (slices, *space.shape)
    real = torch.randn(shape, generator=generator, dtype=dtype)
    return torch.complex(real, torch.randn(shape, generator=generator, dtype=dtype)) if space.complex else real


def slice_dot(a: Tensor, b: Tensor) -> Tensor:
    """Real part of ``<a, b>`` per slice, shape ``(slices,)``; the first argument is conjugated."""
    dots = [torch.vdot(p.reshape(-1), q.reshape(-1)) for p, q in zip(a, b, strict=True)]
    return torch.stack(dots).real


def dot_product_error(operator: LinearOperator, *, slices: int = 2, seed: int = 0) -> float:
    """Test the adjoint of an operator: ``|<A x, y> - <x, A^H y>| / (|A x| |y|)`` for random `x` and `y`.

    Below 1e-5 in float32, forward and adjoint belong together.
    """
    generator = torch.Generator().manual_seed(seed)
    count = operator.slices or slices
    x = random_element(operator.domain, count, generator)
    y = random_element(operator.range, count, generator)
    ax, ahy = operator.forward(x), operator.adjoint(y)
    wide = torch.complex128 if operator.domain.complex or operator.range.complex else torch.float64
    left = torch.vdot(ax.flatten().to(wide), y.flatten().to(wide))
    right = torch.vdot(x.flatten().to(wide), ahy.flatten().to(wide))
    size = float(torch.linalg.vector_norm(ax)) * float(torch.linalg.vector_norm(y))
    if size == 0.0:
        raise InputError("the operator maps a random image to zero, so the test says nothing", field="operator")
    return float((left - right).abs()) / size


class Coupling(Protocol):
    """Protocol of a Hermitian positive semi-definite operator that couples neighbouring slices."""

    def __call__(self, x: Tensor) -> Tensor:
        """``K x`` for ``(slices, ...)``."""

    def curvature(self, x: Tensor) -> Tensor:
        """``<x_i, K x_j>`` for each pair of slices, `x_i` being slice i and empty elsewhere, ``(slices, slices)``."""


def _steps_together(own: Tensor, between: Tensor, slope: Tensor) -> Tensor:
    """Step size of each slice that minimise the quadratic function of curvature ``diag(own) + between`` together."""
    matrix = (torch.diag(own) + between).double()
    scale = matrix.diagonal().sqrt()
    still = scale == 0
    scale = torch.where(still, 1.0, scale)
    matrix = matrix / torch.outer(scale, scale) + torch.diag(still.double())
    found: Tensor = torch.linalg.solve(matrix, slope.double() / scale) / scale
    return torch.where(still, 0.0, found).to(slope.dtype)


def conjugate_gradient(
    system: Callable[[Tensor], Tensor],
    right: Tensor,
    start: Tensor | None,
    iterations: int,
    *,
    tolerance: float = 1e-6,
    precondition: Callable[[Tensor], Tensor] | None = None,
    energy: Callable[[Tensor], Tensor] | None = None,
    coupling: Coupling | None = None,
) -> Tensor:
    """Solve ``system(x) = right`` for a Hermitian positive semi-definite `system`, each slice on its own.

    Step sizes are computed per slice, so the result of one slice does not depend on the others in the
    batch. A slice whose residual has fallen below ``tolerance * |right|`` is left as it is.

    With a `coupling` it is ``(system + coupling)(x) = right``, and the best step sizes depend on the neighbours'. They
    remain one for each slice: with a common one, slices that weigh much would be solved and the others left behind.
    The new directions are conjugate to all slices' last ones, and slices count as solved together.

    Parameters
    ----------
    system
        Maps ``(slices, ...)`` to the same shape, slice by slice.
    right
        Right-hand side, ``(slices, ...)``, real or complex.
    start
        Initial guess; zero when None, which saves one application of `system`.
    iterations
        At most this many.
    tolerance
        Relative residual at which a slice counts as solved, in the preconditioner's norm if there is one.
    precondition
        Approximate inverse of `system`, or of its sum with `coupling`, Hermitian and positive definite.
    energy
        ``<x, system(x)>`` per slice, if that is cheaper than `system`: all that the last iteration needs.
    coupling
        What couples neighbouring slices, in addition to `system`.

    References
    ----------
    Hestenes and Stiefel 1952, J. Res. Natl. Bur. Stand. 49, 409-436. Bridson and Greif 2006, SIAM J. Matrix Anal. Appl.
    27, 1056-1068 (several directions at once, with the best steps along all of them).
    """
    shape = (-1,) + (1,) * (right.ndim - 1)
    x = torch.zeros_like(right) if start is None else start
    residual = right if start is None else right - system(x)
    if coupling is not None and start is not None:
        residual = residual - coupling(x)
    direction = residual if precondition is None else precondition(residual)
    rho = slice_dot(residual, direction)
    size = rho
    if start is not None:
        size = slice_dot(right, right if precondition is None else precondition(right))
    target = tolerance**2 * size
    for iteration in range(1, iterations + 1):
        checkpoint()
        active = rho > target if coupling is None else (rho.sum() > target.sum()).expand(len(rho))
        if not bool(active.any()):
            break
        last = iteration == iterations
        if last and energy is not None:
            curvature = energy(direction)
        else:
            image = system(direction)
            curvature = slice_dot(direction, image)
        if coupling is None:
            step = torch.where(active & (curvature > 0), rho / curvature.clamp(min=1e-38), 0.0)
        else:
            between = coupling.curvature(direction)
            step = _steps_together(curvature, between, slice_dot(direction, residual))
        moved = step.reshape(shape) * direction
        x = x + moved
        if last:
            break
        residual = residual - step.reshape(shape) * image
        if coupling is not None:
            residual = residual - coupling(moved)
        steepest = residual if precondition is None else precondition(residual)
        updated = slice_dot(residual, steepest)
        if coupling is None:
            ratio = torch.where(active, updated / rho.clamp(min=1e-38), 0.0)
            rho = torch.where(active, updated, rho)
        else:
            common = slice_dot(image, steepest) + slice_dot(direction, coupling(steepest))
            ratio = -_steps_together(curvature, between, common)
            rho = updated
        direction = steepest + ratio.reshape(shape) * direction
    return x
