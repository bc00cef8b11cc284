"""``simulate check``: what the theory assumes, held against the features and weights at hand.

Each hypothesis comes with its effect first: how the expected distortion changes when the hypothesis is replaced by what
was measured; the test statistic and its Holm-corrected p-value come second.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from simulate.feature_models.gaussian import fit
from theory import binary
from theory.prediction import expected_distortion, pair_of
from theory.setting.arguments import widths
from theory.setting.compression import compress
from theory.setting.errors import InputError
from theory.setting.files import Features, features_of
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.spread import Errors

ALPHA = 0.05


@in_float64
def check(
    features: Features | Path | str,
    *,
    scheme: str = "symmetric",
    bits: Sequence[int] = (4,),
    per_channel: bool = False,
    classes: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Test the hypotheses of the two-class theory on these features and these weights.

    * Gaussian margins: D'Agostino and Pearson's K^2 per class (Bonferroni over the two); the effect compares the expected
      distortion averaged over the samples themselves, the error integrated out given each, with the Gaussian one.
    * Uniform errors: Kolmogorov-Smirnov distance of E/step from U(-1/2, 1/2); effect of the measured variance.
    * Errors uncorrelated with the weights: their correlation; effect of removing the common gain it implies.
    * Errors independent between rows: their correlation; effect of that correlation (heads of two rows).

    Args:
        features: labelled features or a features file.
        scheme, bits, per_channel, classes: as :func:`theory.predict`; two classes.

    Returns:
        Records ``hypothesis``, ``bits``, ``distortion`` (expected, under the hypothesis), ``effect`` (its change, a fraction),
        ``effect_standard_error`` (sampling noise of the effect where there is any), ``statistic``, ``p_value``
        (Holm-corrected over all records), ``holds`` (that p above 0.05), ``sentence``; largest effect first.

    Raises:
        InputError: a bad file, more than two classes without ``classes``, fewer than 20 samples of a class.
    """
    bits = widths(bits)
    features = features_of(features).restrict(classes)
    if features.classes != 2:
        raise InputError(f"classes: check handles two classes, got {features.classes}: choose two of them (--classes I J)")
    counts = np.bincount(features.labels, minlength=2)
    if counts.min() < 20:
        raise InputError(f"labels: expected at least 20 samples of each class to test normality, got {counts.min()}")
    problem = fit(features)
    found = []
    for width in bits:
        layer = compress(problem.weights, scheme, width, per_channel=per_channel)
        if not layer.steps.max() > 0:
            raise InputError("weights: expected weights that are not all 0, got zeros: there is nothing to compress")
        v, k4, k6 = Errors(layer.steps).moments()
        assumed = expected_distortion(problem, v=v, k4=k4, k6=k6)
        for record in (_margins(features, problem, Errors(layer.steps), assumed), *_error_model(problem, layer, assumed)):
            found.append({"hypothesis": record.pop("hypothesis"), "bits": width, "distortion": assumed, **record})
    for record, p in zip(found, _holm(np.array([record["p_value"] for record in found])), strict=True):
        record.update(p_value=float(p), holds=bool(p > ALPHA))
        record["sentence"] = _sentence(record)
    return sorted(found, key=lambda record: -abs(record["effect"]))


def expected_on_samples(features: Features, errors: Errors) -> tuple[float, float]:
    """Expected distortion averaged over the samples, and its standard error: no hypothesis on the features.

    Given z the noise e'z has variance v |z|^2 and fourth cumulant k4 v^2 sum z_i^4; its tail is ``edgeworth_tail``.
    """
    v, k4, _ = errors.moments()
    z = features.features.astype(np.float64)
    w = features.weights[-1] - (features.weights[0] if len(features.weights) == 2 else 0)
    c = features.bias[-1] - (features.bias[0] if len(features.bias) == 2 else 0)
    t, power = z @ w + c, np.maximum(np.sum(z**2, 1), 1e-300)
    xi = np.abs(t) / np.sqrt(v * power)
    crossing = np.asarray(binary.formula("edgeworth_tail")(xi=xi, l4=k4 * np.sum(z**4, 1) / power**2, l6=0.0))
    right = (t > 0) == (features.labels == 1)
    change = np.where(right, crossing, -crossing)
    return float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))


def _margins(features: Features, problem: Problem, errors: Errors, assumed: float) -> dict[str, Any]:
    measured, se = expected_on_samples(features, errors)
    pair = pair_of(problem)
    t = features.features.astype(np.float64) @ pair.w + pair.c
    tests = [stats.normaltest(t[features.labels == k]) for k in (0, 1)]
    return {
        "hypothesis": "Gaussian margins",
        "effect": measured - assumed,
        "effect_standard_error": se,
        "statistic": float(max(one.statistic for one in tests)),
        "p_value": min(1.0, 2 * float(min(one.pvalue for one in tests))),
    }


def _error_model(problem: Problem, layer, assumed: float) -> list[dict[str, Any]]:
    v, k4, k6 = Errors(layer.steps).moments()

    def change(variance: float) -> float:
        """Of the expected distortion when the errors have this variance instead."""
        return expected_distortion(problem, v=variance, k4=k4, k6=k6) - assumed

    E = layer.weights - problem.weights
    live = layer.steps > 0
    scaled = (E[live] / layer.steps[live, None]).reshape(-1)
    uniform = stats.kstest(scaled, stats.uniform(-0.5, 1).cdf)
    measured = float(np.sum(np.mean(E**2, 1)))
    weights = (problem.weights[live] / layer.steps[live, None]).reshape(-1)
    correlation, p = _correlation(scaled, weights)
    alpha = float(np.mean(scaled * weights) / np.mean(weights**2))
    gained = v * (1 - correlation**2) / max(1 + alpha, 1e-3) ** 2
    records = [
        {
            "hypothesis": "errors uniform in +-step/2",
            "effect": change(measured),
            "statistic": float(uniform.statistic),
            "p_value": float(uniform.pvalue),
        },
        {
            "hypothesis": "errors uncorrelated with the weights",
            "effect": change(gained),
            "statistic": correlation,
            "p_value": p,
        },
    ]
    if len(E) == 2 and live.all():
        correlation, p = _correlation(E[0], E[1])
        tied = v - 2 * correlation * float(layer.steps[0] * layer.steps[1]) / 12
        records.append(
            {"hypothesis": "errors independent between rows", "effect": change(tied), "statistic": correlation, "p_value": p}
        )
    return [{**record, "effect_standard_error": 0.0} for record in records]


def _correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Pearson's correlation and its two-sided p-value; 0 and 1 where one side is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 1.0
    correlation, p = np.asarray(stats.pearsonr(x, y))
    return float(correlation), float(p)


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p-values."""
    order = np.argsort(p)
    corrected = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    back = np.empty_like(corrected)
    back[order] = corrected
    return back


def _sentence(record: dict[str, Any]) -> str:
    verdict = "not rejected" if record["holds"] else "rejected"
    noise = record["effect_standard_error"]
    spread = f" +- {100 * 1.96 * noise:.3f}" if noise else ""
    return (
        f"{record['hypothesis']}: {verdict} (statistic {record['statistic']:.3g}, Holm p = {record['p_value']:.2g}); with what "
        f"was measured instead, the expected distortion at {record['bits']} bits, {100 * record['distortion']:.3f} points, "
        f"changes by {100 * record['effect']:+.3f}{spread} points"
    )
