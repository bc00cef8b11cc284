"""Quantization errors against the uniform hypothesis: their law, variance and correlation with the weights, theory's curves."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from simulate.estimates import NORMAL_95
from simulate.experiments.halves import shipped
from theory.gaussian_quantizer import gaussian_moments
from theory.setting.schemes import compress

NAME = "quantization_errors"
BITS = (2, 3, 4, 5, 6)
SHOWN = (2, 3, 5)
BINS = np.linspace(-0.5, 0.5, 21)
DRAWN = 2**17


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Errors of the shipped network's last layer, of Gaussian weights drawn, and their theory (Widrow's series)."""
    W, table = shipped()[0].weights, []
    for bits in BITS:
        layer = compress(W, "symmetric", bits)
        scaled, weights = (layer.weights - W) / layer.steps, W / layer.steps
        counts, _ = np.histogram(scaled, BINS)
        table += [_line("histogram", bits=bits, low=float(x), count=int(n)) for x, n in zip(BINS[:-1], counts, strict=True)]
        table += [_moments("layer", e, w, bits=bits) for e, w in zip(scaled, weights, strict=True)]
    rng = np.random.default_rng(seed)
    for ratio in np.geomspace(0.2, 2, 10):
        w = rng.standard_normal(DRAWN) * ratio
        table.append(_moments("drawn", np.round(w) - w, w))
    ratios = np.geomspace(0.2, 2.5, 100)
    for ratio, power, alpha in zip(ratios, *gaussian_moments(ratios), strict=True):
        moments = {"variance": float(12 * power), "correlation": float(alpha * ratio / np.sqrt(power))}
        table.append(_line("theory", ratio=float(ratio), **moments))
    return table, []


def _line(kind: str, **values) -> dict[str, Any]:
    """A line of the table: bin and count, or ratio (weight deviation over step), variance over step^2/12 and correlation."""
    return {"kind": kind} | dict.fromkeys(("bits", "low", "count", "ratio", "variance", "correlation")) | values


def _moments(kind: str, e: np.ndarray, w: np.ndarray, **values) -> dict[str, Any]:
    """Of errors and weights in steps."""
    variance, correlation = float(12 * np.mean(e**2)), float(np.corrcoef(e, w)[0, 1])
    return _line(kind, ratio=float(np.std(w)), variance=variance, correlation=correlation, **values)


def draw(table: list[dict[str, Any]]):
    """Left: histogram of E/step. Middle and right: variance and correlation against s/step."""
    figure, (law, variance, correlation) = plt.subplots(1, 3, figsize=(7, 3.1))
    weights = sum(one["count"] for one in table if one["kind"] == "histogram" and one["bits"] == BITS[0])
    for bits, color, line in zip(SHOWN, ("#D55E00", "#0072B2", "#009E73"), ("-", "--", ":"), strict=True):
        rows = [one for one in table if one["kind"] == "histogram" and one["bits"] == bits]
        density = np.array([one["count"] for one in rows]) / weights / (BINS[1] - BINS[0])
        law.stairs(density, BINS, color=color, linestyle=line, linewidth=1.2, label=f"{bits} bits")
    expected = 1 / (BINS[1] - BINS[0])
    noise = NORMAL_95 * np.sqrt(expected / weights)
    law.fill_between([-0.5, 0.5], 1 - noise, 1 + noise, color="0.85", label="uniform, 95 %", zorder=0)
    law.set(xlabel="error/step", ylabel="density", title="shipped ResNet-20, one step")
    law.set_ylim(0, 3.6)
    law.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    theory = sorted((one for one in table if one["kind"] == "theory"), key=lambda one: one["ratio"])
    for axis, key, label in (
        (variance, "variance", "variance/(step²/12)"),
        (correlation, "correlation", "correlation with the weights"),
    ):
        axis.plot(
            [one["ratio"] for one in theory], [one[key] for one in theory], color="black", label="theory, Gaussian weights"
        )
        for kind, mark, color, name in (
            ("drawn", "o", "#D55E00", "drawn weights"),
            ("layer", ".", "#0072B2", "rows of the layer"),
        ):
            rows = [one for one in table if one["kind"] == kind]
            axis.plot([one["ratio"] for one in rows], [one[key] for one in rows], mark, color=color, markersize=3.5, label=name)
        axis.axhline(1 if axis is variance else 0, color="0.5", linestyle="--", linewidth=0.8, label="uniform hypothesis")
        axis.set_xscale("log")
        axis.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
        axis.minorticks_off()
        axis.set(xlabel="weight deviation/step", ylabel=label)
    figure.legend(*variance.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure
