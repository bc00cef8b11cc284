"""Risk, distortion and flip rate of a network all of whose layers are compressed, from the noise of its logits alone.

To first order independent errors of variance v_t in the entries of tensor t give the logits of an image the covariance
G = sum_t v_t J_t J_t'. Beyond it the mean logits shrink by a gain g common to images and classes, -ln g = kappa v/V with v the
mean variance of a logit about the mean logit of its image and V the mean square of the clean ones: logits ~ N(g a, sqrt(g) G).
Which class wins is one orthant an image and rival; labels are replaced by calibrated posteriors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_ndtr

from theory.calibration import Calibration, calibrate, has_maximum
from theory.effect import Draws
from theory.integrals.decisions import wins
from theory.integrals.orthant import estimate
from theory.integrals.two_classes import evaluate
from theory.interval import Asked, interval
from theory.setting.checks import whole
from theory.setting.errors import InputError, listed
from theory.setting.noise import Noise, noise_ratio
from theory.setting.plan import Plan, TensorPlan
from theory.setting.problem import decide
from theory.setting.question import question
from theory.setting.record import Record, class_fields, network_fields, version
from theory.setting.schemes import SCHEMES
from theory.setting.schemes.base import BREAKDOWN
from theory.setting.schemes.uniform import Uniform, affine_grid

UNKNOWN = "unknown"  # the law of single networks where the file has no draws
METHODS = ("logit_gain", "first_order")
KAPPA = 1.2  # -ln g over v/V, seen on a ResNet-20 and a ResNet-44
MISFIT = 0.25  # standard deviation of what first order and gain get wrong, over the flips and the root of 1.2 v/V (a ResNet-20)
COARSE = 2  # bits at which one layer of a ResNet-20 made 17 points of loss of 9 expected
FIRST_ORDER = 0.2  # kappa v/V above which first order and gain no longer hold to a point


class Power(NamedTuple):
    """Error variance of every tensor (T,) by the scale of its Gram, 0 where it is not rounded so."""

    by_scale: dict[str, np.ndarray]

    def covariance(self, noise: Noise) -> np.ndarray:
        """(n, C, C) of the logits, float64."""
        n, C = noise.candidates.shape
        total = np.zeros((n, C, C))
        for scale, variance in self.by_scale.items():
            gram, own = noise.grams[scale], np.flatnonzero(variance)
            total += np.tensordot(variance[own], gram[own].astype(np.float64), 1)
        return total

    def shifts(self, noise: Noise) -> np.ndarray | None:
        """(M, n, C) first-order shifts of the logits under the common draws, where the file has them."""
        if any(scale not in noise.draws for scale, variance in self.by_scale.items() if variance.any()):
            return None
        total = 0.0
        for scale, variance in self.by_scale.items():
            for t in np.flatnonzero(variance):
                total = total + np.sqrt(variance[t]) * noise.draws[scale][:, t].astype(np.float64)
        return np.asarray(total)


def error_power(noise: Noise, plan: Plan, activation_bits: int | None = None) -> Power:
    """Of uniform errors in +-step/2 of the weights that a plan compresses, and of their inputs where these are rounded too.

    Raises:
        InputError: a scheme without steps, groups, or a granularity that the file has no Gram of; no inputs in the file.
    """
    T, place = len(noise.tensors), noise.tensors.indices("weight")
    by_scale = {scale: np.zeros(T) for scale in noise.grams}
    for name, tensor in plan.tensors.items():
        t, scheme = place[name], _uniform(tensor)
        assert tensor.bits is not None
        part = tensor.options.get("step", 256)
        if tensor.options.get("per_channel"):
            scale = "_channel_affine" if scheme.zero_point else "_channel_symmetric"
            if scale not in noise.grams:
                raise InputError(f"per_channel: expected gram{scale} in the noise file, which has none")
            ends = np.zeros((1, 1)), np.ones((1, 1))  # rows are scaled with their range
        else:
            scale = ""
            ends = np.full((1, 1), noise.tensors.low[t]), np.full((1, 1), noise.tensors.high[t])
        step, _ = scheme.grid(*ends, tensor.bits, part)
        by_scale[scale][t] = float(step[0, 0]) ** 2 / 12
    if activation_bits is None:
        return Power(by_scale)
    entering = noise.tensors.indices("input")
    if not entering:
        raise InputError("activation_bits: expected tensors of kind `input` in the noise file, which has none")
    for name, t in entering.items():
        if name in plan.tensors:
            ends = np.full((1, 1), noise.tensors.low[t]), np.full((1, 1), noise.tensors.high[t])
            step, _ = affine_grid(*ends, whole("activation_bits", activation_bits, 2, 17))
            by_scale[""][t] = float(step[0, 0]) ** 2 / 12
    return Power(by_scale)


def _uniform(tensor: TensorPlan) -> Uniform:
    scheme = SCHEMES[tensor.scheme]
    if not isinstance(scheme, Uniform):
        stepped = [one.name for one in SCHEMES.values() if isinstance(one, Uniform)]
        raise InputError(f"scheme: expected one with a step ({', '.join(stepped)}) for a noise file, got {tensor.scheme}")
    if tensor.options.get("group_size"):
        raise InputError("group_size: expected none for a noise file, which has steps a tensor or a channel")
    return scheme


def stored_bits(noise: Noise, plan: Plan) -> tuple[dict[str, int], int]:
    """Stored bits by kind, and of how many weights."""
    place, breakdown, count = noise.tensors.indices("weight"), dict.fromkeys(BREAKDOWN, 0), 0
    for name, tensor in plan.tensors.items():
        t, scheme = place[name], _uniform(tensor)
        steps = int(noise.tensors.rows[t]) if tensor.options.get("per_channel") else 1
        width, size = tensor.bits or 0, int(noise.tensors.sizes[t])
        breakdown["codes"] += width * size
        breakdown["steps"] += 32 * steps
        breakdown["zero_points"] += width * steps if scheme.zero_point else 0
        count += size
    return breakdown, count


def predict_all_layers(
    noise: Noise,
    *,
    scheme: str,
    bits: Sequence[int] | int | None,
    asked: Asked,
    temperature: float | None,
    method: str | None = None,
    layers: Sequence[str] | None = None,
    layer_bits: Mapping[str, int] | None = None,
    plan: Any = None,
    **options: Any,
) -> list[Record]:
    """The records of :func:`theory.predict` for a noise file."""
    if method not in (None, *METHODS):
        raise InputError(f"method: expected one of {', '.join(METHODS)} for a noise file, got {method!r}")
    activation_bits = options.pop("activation_bits", None)
    own: dict[str, Any] = dict(layers=layers, layer_bits=layer_bits, plan=plan, fold=noise.fold)
    plans = question(scheme, **options).network_plans(noise.tensors.indices("weight"), bits, **own)
    state = state_of(noise, temperature)
    return [predicted(state, one, asked, method or METHODS[0], activation_bits) for one in plans]


def state_of(noise: Noise, temperature: float | None) -> "State":
    """The posteriors and decisions of a noise file, at a temperature or the likeliest for its labels.

    Raises:
        InputError: neither, or a decided class that is not followed.
    """
    if not noise.labelled and temperature is None:
        raise InputError("labels: missing, expected in a noise file (or a --temperature in their place)")
    calibration = Calibration(temperature, 0.0) if temperature else calibrate(noise.logits, noise.labels)
    posterior = noise.posterior(calibration.temperature)
    decided = decide(noise.logits)
    followed = np.take_along_axis(noise.logits, noise.candidates, 1)
    own = np.argmax(np.where(noise.candidates == decided[:, None], 1, 0), 1)
    if np.any(np.take_along_axis(noise.candidates, own[:, None], 1)[:, 0] != decided):
        raise InputError("candidates: expected the class that wins among them in every row")
    return State(noise, followed, own, posterior, decided, calibration)


class State(NamedTuple):
    """What all records of a noise file share."""

    noise: Noise
    followed: np.ndarray
    own: np.ndarray
    posterior: np.ndarray
    decided: np.ndarray
    calibration: Calibration

    @property
    def kappa(self) -> float:
        """-ln g over v/V: as the draws show it, or as it was seen on other networks."""
        rates = self.noise.gain_rates
        return KAPPA if rates is None else float(np.mean(rates))

    @property
    def linear(self) -> bool:
        """Whether the logits are linear in the weights, as those of a last layer: no draw has a gain."""
        rates = self.noise.gain_rates
        return rates is not None and not np.any(rates)

    @property
    def stake(self) -> np.ndarray:
        """(n, C) what is lost where a candidate wins: the posterior of the clean decision less its own."""
        return self._less_than_own(self.posterior)

    @property
    def stake_slope(self) -> np.ndarray:
        """(n, C) the derivative of the stake in the logarithm of the temperature."""
        logits, p, T = self.noise.logits, self.posterior, self.calibration.temperature
        mean = np.sum(p * logits, 1, keepdims=True)
        slope = evaluate("posterior_slope")(posterior=p, logit=logits, mean_logit=mean, temperature=T)
        return self._less_than_own(np.asarray(slope))

    def _less_than_own(self, values: np.ndarray) -> np.ndarray:
        """(n, C) of (n, K) that of the decided class less that of each candidate."""
        among = np.take_along_axis(values, self.noise.candidates, 1)
        return np.take_along_axis(among, self.own[:, None], 1) - among

    def contrasts(self, gram: np.ndarray) -> np.ndarray:
        """(n, C) variances of the candidates' logits less that of the decided class, from (n, C, C)."""
        gram = gram.astype(np.float64)
        own = self.own[:, None]
        variance = np.diagonal(gram, axis1=1, axis2=2)
        shared = np.take_along_axis(gram, own[:, :, None], 1)[:, 0]
        return np.maximum(variance + np.take_along_axis(variance, own, 1) - 2 * shared, 0.0)

    def at(self, power: Power, seed: int, method: str = METHODS[0]) -> "At":
        """What errors of these variances do."""
        covariance = power.covariance(self.noise)
        ratio = noise_ratio(self.followed, covariance)
        gain = float(np.exp(-self.kappa * ratio)) if method == "logit_gain" else 1.0
        chances, _ = wins(gain * self.followed, np.sqrt(gain) * covariance, self.own, seed=seed)
        return At(covariance, ratio, gain, chances)


class At(NamedTuple):
    """Logits N(gain a, sqrt(gain) covariance): covariance (n, C, C), v/V, gain, and the chances (replicates, n, C) with which
    each candidate but the decided class wins."""

    covariance: np.ndarray
    ratio: float
    gain: float
    chances: np.ndarray


def sensitivities(state: State, power: Power, at: At) -> dict[str, np.ndarray]:
    """(T,) by scale of the Gram: dD/dv_t of every tensor at these error variances, with respect to the variance in that Gram.

    The chance that a rival wins changes with the variance u of its contrast to the decided class as its pairwise bound
    Phi(-lead/sqrt u) does: d ln P = d ln Phi. The gain is held.
    """
    chance = at.chances.mean(0)
    lead = at.gain * (np.take_along_axis(state.followed, state.own[:, None], 1) - state.followed)
    spread = np.sqrt(np.sqrt(at.gain) * state.contrasts(at.covariance))
    some = (chance > 0) & (spread > 0)
    ratio, spread = np.where(some, lead, 0.0) / np.where(some, spread, 1.0), np.where(some, spread, 1.0)
    slope = np.exp(-0.5 * ratio**2 - log_ndtr(-ratio)) / np.sqrt(2 * np.pi) * ratio / (2 * spread**2)
    pull = np.where(some, chance * state.stake * slope, 0.0) / len(chance)
    found = {}
    for scale, gram in state.noise.grams.items():
        variances = power.by_scale[scale]
        found[scale] = np.array(
            [max(float(np.sum(pull * state.contrasts(gram[t]))), 0.0) if variances[t] else 0.0 for t in range(len(variances))]
        )
    return found


def shares(state: State, power: Power, at: At) -> dict[str, float]:
    """Of every tensor with errors the share of the loss that its noise makes, to first order: s_t v_t over their sum. Inputs of
    layers have ", input" behind the name."""
    parts = {}
    for scale, slopes in sensitivities(state, power, at).items():
        for t in np.flatnonzero(power.by_scale[scale]):
            name, kind = state.noise.tensors.names[t], state.noise.tensors.kinds[t]
            parts[name if kind == "weight" else f"{name}, {kind}"] = float(slopes[t] * power.by_scale[scale][t])
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()} if total > 0 else parts


def predicted(state: State, plan: Plan, asked: Asked, method: str = METHODS[0], activation_bits: int | None = None) -> Record:
    """The record of a plan."""
    noise, stake = state.noise, state.stake
    n, K = noise.logits.shape
    power = error_power(noise, plan, activation_bits)
    at = state.at(power, asked.seed, method)
    lost = estimate((at.chances * stake).sum(2).mean(1))
    flips = estimate(at.chances.sum(2).mean(1))
    chance = at.chances.mean(0)
    D, F = float(lost.value), min(1.0, float(flips.value))
    by_image = (chance * stake).sum(1)
    moved = float((chance * state.stake_slope).sum(1).mean()) * (
        state.calibration.log_error if has_maximum(state.calibration) else 0
    )
    draws = _networks(state, power, at.gain, at.ratio, float(by_image.var() / n) + moved**2, F)
    strength = 0.0 if state.linear else KAPPA * at.ratio
    misfit = MISFIT * float(np.sqrt(strength)) * F
    ends, sources = interval(draws, D, misfit, asked)
    made, mended = _by_class(state, chance)
    priors = state.posterior.mean(0)
    top = state.posterior[np.arange(n), state.decided]
    before = 1 - np.bincount(state.decided, weights=top, minlength=K) / n / np.maximum(priors, 1e-300)
    risk = float(1 - top.mean())
    return Record(
        **network_fields(plan, *stored_bits(noise, plan)),
        errors="expected",
        method=method,
        risk_before=risk,
        risk_after=risk + D,
        distortion=D,
        interval=ends,
        confidence=asked.confidence,
        interval_sources=sources,
        flip_rate=max(F, abs(D)),
        per_class=class_fields(priors, 1 - before, 1 - before - (made - mended) / np.maximum(priors, 1e-300)),
        numerical_error=float(lost.error),
        risk_before_error=0.0,
        flip_rate_error=float(flips.error),
        warnings=_warnings(state, plan, strength, spread_known=draws.law != UNKNOWN),
        provenance={
            "by": f"theory.predict {version()}",
            "noise": noise.provenance,
            "temperature": state.calibration.temperature,
            "log_temperature_error": state.calibration.log_error,
            "gain": at.gain,
            "noise_ratio": at.ratio,
            "kappa": state.kappa,
            "activation_bits": activation_bits,
            "shares": shares(state, power, at),
            "test_size": asked.test_size,
            "seed": asked.seed,
        },
    )


def _by_class(state: State, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) right decisions that are lost of each class, and those that are gained, over all images."""
    n, K = state.noise.logits.shape
    among = np.take_along_axis(state.posterior, state.noise.candidates, 1)
    top = np.take_along_axis(among, state.own[:, None], 1)[:, 0]
    lost = np.bincount(state.decided, weights=top * chance.sum(1), minlength=K) / n
    gained = np.bincount(state.noise.candidates.ravel(), weights=(among * chance).ravel(), minlength=K) / n
    return lost, gained


def _networks(state: State, power: Power, gain: float, ratio: float, variance: float, flips: float) -> Draws:
    """Single networks, as the common draws show them, each with the gain that it was seen to have."""
    shifts = power.shifts(state.noise)
    if shifts is None:
        return Draws(UNKNOWN, np.zeros(1), np.array([flips]), np.array([variance]))
    rates = state.noise.gain_rates
    gains = np.full(len(shifts), gain) if rates is None or gain == 1 else np.exp(-np.maximum(rates, 0.0) * ratio)
    gains = gains[:, None, None]
    after = np.argmax(gains * state.followed + gains**0.25 * shifts, 2)
    lost = np.take_along_axis(np.broadcast_to(state.stake, shifts.shape), after[..., None], 2)[..., 0].mean(1)
    changed = (after != state.own).mean(1)
    return Draws("common draws", lost, np.maximum(changed, np.abs(lost)), np.full(len(lost), variance))


def _warnings(state: State, plan: Plan, ratio: float, *, spread_known: bool) -> list[str]:
    sentences = []
    coarse = [name for name, tensor in plan.tensors.items() if (tensor.bits or 0) <= COARSE]
    if coarse:
        sentences.append(
            f"errors of {COARSE} bits or fewer are not uniform ({listed(coarse, 3)}): the actual network may lose more than "
            "random ones do"
        )
    if not spread_known:
        sentences.append("no draws in the noise file: the spread between single networks is not in the interval")
    if ratio > FIRST_ORDER:
        sentences.append(
            f"the noise is too strong for first order: {KAPPA:g} v/V = {ratio:.2f} is above {FIRST_ORDER}: the loss is likely "
            "larger than this"
        )
    if state.noise.labelled and state.calibration.log_error and not has_maximum(state.calibration):
        sentences.append("the likelihood of the temperature has no maximum: too few images or errors to calibrate on")
    return sentences
