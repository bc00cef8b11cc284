"""Error moments of a quantizer for Gaussian weights: the theory against which the uniform hypothesis is held."""

import numpy as np

from theory.integrals.two_classes import evaluate


def gaussian_gain(ratio: float) -> float:
    """v_eff/(Delta^2/12) of a mid-tread quantizer at weight standard deviation ``ratio`` in steps (no clipping)."""
    power, alpha = gaussian_moments(np.array([ratio]))
    return float(12 * evaluate("gain")(power=power[0], alpha=alpha[0], s=ratio))


def gaussian_moments(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E e^2/Delta^2 and the gain alpha = E[e w]/s^2 of a mid-tread quantizer at s/Delta = ``ratios`` (n,), no clipping.

    By the Fourier series ``quantizer_moments`` and ``quantizer_weight_product``.
    """
    power = evaluate("quantizer_moments")(s=ratios, step=1.0, offset=0.0)
    product = evaluate("quantizer_weight_product")(s=ratios, step=1.0, offset=0.0)
    return power, product / ratios**2


def row_correlation(sigma_0: float, sigma_1: float, rho: float, terms: int = 200) -> float:
    """E[e_0 e_1]/(Delta_0 Delta_1/12) of two jointly Gaussian rows, standard deviations in steps, correlation rho."""
    n = np.arange(1.0, terms + 1)
    summand = evaluate("row_correlation")(
        n_0=n[:, None] + 0 * n, n_1=n + 0 * n[:, None], sigma_0=sigma_0, sigma_1=sigma_1, rho=rho
    )
    return float(np.sum(summand))
