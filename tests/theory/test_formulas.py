"""Hot loops that type a formula again are tied to its derived record: both at random points, and a mistake would be seen."""

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from derivations import RESULTS
from derivations.jax_code import compile_result
from theory.integrals import lines, logit_noise
from theory.integrals.orthant import separated
from theory.setting.precision import in_float64


def derived(name: str):
    return compile_result(RESULTS[name], backend="numpy")


@in_float64
def test_crossings_along_a_line_are_the_derived_ones(seed):
    rng = np.random.default_rng(seed)
    start, slope = rng.standard_normal((2, 1, 5, 40))
    own, formula = 2, derived("line_crossing")
    gives, takes = (np.asarray(x)[0] for x in lines._ends(jnp.asarray(start), jnp.asarray(slope), jnp.asarray(own)))
    for j in (0, 1, 3, 4):
        tau = formula(start_y=start[0, own], start_j=start[0, j], slope_y=slope[0, own], slope_j=slope[0, j])
        leads_after = slope[0, own] > slope[0, j]
        np.testing.assert_allclose(np.where(leads_after, gives[j], takes[j]), tau, rtol=1e-12)
        assert np.all(np.isinf(np.where(leads_after, takes[j], gives[j])))


@in_float64
def test_factors_of_a_separated_orthant_are_the_derived_ones(seed):
    """The first factor, and the second at the first variable drawn, whose quantile is that of the same factor."""
    rng = np.random.default_rng(seed)
    factor, mean, points = derived("separation_factor"), rng.standard_normal(2), rng.random((50, 2))
    L = np.array([[1.3, 0.0], [-0.7, 0.9]])
    first = factor(centre=mean[0], spread=L[0, 0])
    drawn = -ndtri(points[:, 0] * first)
    second = factor(centre=mean[1] + L[1, 0] * drawn, spread=np.full(50, L[1, 1]))
    np.testing.assert_allclose(separated(jnp.asarray(mean), jnp.asarray(L), jnp.asarray(points)), first * second, rtol=1e-10)


@in_float64
def test_noise_of_the_own_logit_is_integrated_over_the_derived_factor(seed):
    """The trapezoid rule over the product of the factors, node by node."""
    rng = np.random.default_rng(seed)
    logits, deviations, chosen = rng.standard_normal((6, 4)), rng.uniform(0.3, 1.5, (6, 4)), rng.integers(0, 4, 6)
    t, formula = np.linspace(-8, 8, 201), derived("own_noise")
    value, _ = logit_noise._compiled(*map(jnp.asarray, (logits, deviations, chosen, t)))
    for i, y in enumerate(chosen):
        product = np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)
        for j in set(range(4)) - {int(y)}:
            gap = np.full_like(t, logits[i, y] - logits[i, j])
            product = product * formula(gap=gap, own=deviations[i, y], rival=deviations[i, j], norm=1.0, t=t)
        np.testing.assert_allclose(float(value[i]), np.sum(product) * (t[1] - t[0]), rtol=1e-10)
