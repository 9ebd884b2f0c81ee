"""The best mixture by residuals at withheld samples, in closed form, and what noise may not decide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.pipeline.mixing import mixed, simplex


def products(errors: NDArray[np.float64], noise: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    """Inner products of residuals in each unit: errors ``(candidates, units, n)`` and the same noise in all."""
    generator = np.random.default_rng(seed)
    residuals = errors + noise * generator.standard_normal(errors.shape[1:])
    return np.asarray(np.einsum("iun,jun->uij", residuals, residuals))


def test_the_simplex_is_searched_to_its_minimum() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        root = generator.standard_normal((3, 4)) + generator.uniform(0, 2)
        matrix = root @ root.T
        found = simplex(matrix)
        assert found.min() >= 0 and found.sum() == pytest.approx(1)
        tried = generator.dirichlet([0.5, 0.5, 0.5], 2000)
        assert found @ matrix @ found <= np.einsum("ni,ij,nj->n", tried, matrix, tried).min() * (1 + 1e-9)


def test_independent_errors_are_weighted_by_their_inverse_variance() -> None:
    generator = np.random.default_rng(1)
    errors = np.array([1.0, 0.5])[:, None, None] * generator.standard_normal((2, 20, 4000))
    found = mixed(products(errors), [0])
    assert found.weights == pytest.approx([0.2, 0.8], abs=0.02)
    assert found.gain_db == pytest.approx(10 * np.log10(1 / 0.2), abs=0.2)
    assert found.gains_db == pytest.approx([0, 6.02], abs=0.1)


def test_noise_does_not_decide() -> None:
    """Candidates that err alike: among many scans the classical one is kept more often than not, and never lost."""
    kept = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        common = generator.standard_normal((1, 8, 30))
        errors = common + 0.1 * generator.standard_normal((2, 8, 30))
        kept.append(mixed(products(errors, noise=3.0, seed=seed + 100), [0]).weights[0])
    assert np.mean(kept) > 0.6


def test_what_is_worse_in_every_unit_gets_nothing() -> None:
    generator = np.random.default_rng(2)
    good = generator.standard_normal((1, 12, 200))
    errors = np.concatenate([good, good + 2 * generator.standard_normal((1, 12, 200))])
    assert mixed(products(errors, noise=1.0), [0]).weights == pytest.approx([1, 0])
    assert mixed(products(errors[::-1], noise=1.0), [0]).weights == pytest.approx([0, 1], abs=0.05)


def test_one_sample_decides_nothing() -> None:
    generator = np.random.default_rng(3)
    errors = np.array([2.0, 0.1])[:, None, None] * generator.standard_normal((2, 1, 50))
    found = mixed(products(errors), [0])
    assert found.weights == pytest.approx([1, 0]) and found.confidence == 0


def test_the_best_classical_candidate_is_the_safe_one() -> None:
    generator = np.random.default_rng(4)
    errors = np.array([3.0, 1.0, 3.0])[:, None, None] * generator.standard_normal((3, 10, 300))
    found = mixed(products(errors), [0, 1])
    assert found.gains_db[1] == 0 and found.gains_db[0] < 0
    assert found.weights[1] > 0.7


def test_a_few_units_with_most_of_the_energy_do_not_decide_alone() -> None:
    """Lines of k-space near its centre have a hundred times the energy of others; all say the same."""
    generator = np.random.default_rng(5)
    energy = np.array([10.0, 6.0] + 14 * [0.3])[:, None]
    errors = energy * np.stack([np.ones((16, 40)), 0.6 * np.ones((16, 40))])
    errors[1] *= generator.uniform(0.8, 1.2, (16, 1)) * generator.choice([-1, 1], (16, 40))
    found = mixed(products(errors), [0])
    assert found.confidence > 3 and found.weights[1] > 0.5
