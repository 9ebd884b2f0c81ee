"""Fill in tuned settings, looked up by method, acquisition kind and undersampling.

`recon tune` writes ``defaults.yaml``. What a job says itself always wins: one that sets a tuned setting to another
value gets the method's own defaults for the rest, since tuned values belong together. Presets of published constants
are left as they are.
"""

from __future__ import annotations

from recon.defaults import effort
from recon.defaults.table import M, Tuned, completed, nearest
from recon.problem.problem import Problem
from recon.spec.methods import Method

NEGLIGIBLE = 1e-3
"""Noise over the root mean square of the data below which settings for data without noise serve as well."""


def tuned(method: Method, kind: str, problem: Problem) -> Tuned | None:
    """Look up the tuned settings of the nearest task; arguments as for `resolved`.

    A job has one set of them: that for noisy data if any slice is noisy, since it knows the noise of each slice.
    """
    size = problem.data.abs().square().flatten(1).mean(dim=1).sqrt()
    noisy = bool(((problem.noise > NEGLIGIBLE * size) & (size > 0)).any())
    operator = problem.operator
    return nearest(method, kind, operator.sampling_pattern, operator.undersampling, noisy=noisy)


def resolved(method: M, kind: str, problem: Problem) -> M:
    """Fill in a method's open settings with those tuned for the nearest task, and those of its effort.

    Parameters
    ----------
    method
        As the user gave it.
    kind
        Kind of acquisition, as in a specification.
    problem
        The problem to be solved.
    """
    return effort.applied(completed(method, tuned(method, kind, problem)), method, kind)
