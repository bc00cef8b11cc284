"""``simulate run --network``: real networks all of whose layers are compressed, run on images.

The actual network has its weights replaced by the compressed ones. The expected one has independent uniform errors in +-step/2:
of networks drawn, or by random signs (Wen et al., "Flipout", ICLR 2018). With r, s random signs of the output and input
channels of each image, W x + r * (E (s * x)) shows every image errors of the same law, nearly independent of those that the
other images see, so that one draw says as much of the mean as many networks.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, ndtri, softmax

from simulate.estimates import NORMAL_95, Decisions, counted
from simulate.networks.inputs import OPTIONS as IMAGE_OPTIONS
from simulate.networks.inputs import Inputs, preprocessing_of, read_inputs
from simulate.networks.jacobians import Weight, weights_of
from simulate.networks.linearize import Division, division
from simulate.networks.network import NAMES
from simulate.networks.operations import Operation, Watch
from simulate.networks.torch_networks import TorchClassifier, open_classifier
from theory.setting.checks import seed_of, share, whole
from theory.setting.command_line import progress, say
from theory.setting.errors import InputError
from theory.setting.plan import Plan, network_plans
from theory.setting.problem import decide
from theory.setting.question import question
from theory.setting.record import Record, class_fields, network_fields, version
from theory.setting.schemes import Compressed
from theory.setting.schemes.base import BREAKDOWN

STANDARD_ERROR = 0.003  # of the mean over errors, by default
WIDEST = 7.0  # |log T - log of the logits' deviation| that is looked at
FEWEST_DRAWS, MOST_DRAWS = 4, 4096
SPATIAL = {"convolution", "transposed convolution"}


def run_network(
    *,
    network: str,
    data: Path | str,
    scheme: str,
    bits: Sequence[int] | None = None,
    checkpoint: Path | str | None = None,
    errors: str = "actual",
    split: str = "test",
    limit: int | None = None,
    confidence: float = 0.95,
    networks: int | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Record]:
    """Run a real network with its weights compressed.

    Args:
        network, data, checkpoint, split: as :func:`simulate.extract`; PyTorch networks.
        scheme, bits, errors, confidence: as :func:`theory.predict`; every convolution and linear weight is compressed, its rows
            the output channels.
        limit: only the first images of those that do not calibrate.
        networks: of expected errors so many networks drawn in the place of random signs; they also give the spread.
        seed: of the draws.
        options: of the scheme; ``layers`` and ``layer_bits`` (:func:`theory.setting.plan.network_plans`); ``calibrate``, the
            last images of the split, left out; ``standard_error`` of the mean over errors; ``output`` and preprocessing as
            :func:`simulate.extract`; ``unlabelled`` reads no label of these images: risks are those of the clean network's
            posteriors, calibrated on the images that calibrate or at a ``temperature``; with ``labelled`` the labels of so many
            of these images correct the rest.

    Returns:
        One record a plan: that of :func:`simulate.measure` for actual errors; else the mean over errors on these very images,
        whose own noise is the source ``test_set``.

    Raises:
        InputError: images or network that can't be read, an unknown weight, a scheme that expected errors do not know.
    """
    if errors not in ("actual", "expected"):
        raise InputError(f"errors: expected one of actual, expected, got {errors!r}")
    taken = {
        name: options.pop(name, None)
        for name in ("layers", "layer_bits", "calibrate", "standard_error", "output", "temperature", "labelled")
    }
    blind = bool(options.pop("unlabelled", False))
    shaping = {name: options.pop(name) for name in list(options) if name in IMAGE_OPTIONS}
    asked = question(scheme, **options)
    if errors == "expected" and not asked.scheme.stepped:
        raise InputError(f"errors: expected 'actual' for scheme {scheme}, whose errors are known, got 'expected'")
    if networks is not None and errors == "actual":
        raise InputError(f"networks: expected none with actual errors (there is one network), got {networks}")
    if not blind and (taken["temperature"] is not None or taken["labelled"] is not None):
        raise InputError("temperature, labelled: expected with --unlabelled alone, got them without")
    if blind and errors != "actual":
        raise InputError(f"unlabelled: expected with actual errors alone, got {errors}")
    goal = STANDARD_ERROR if taken["standard_error"] is None else share("standard_error", taken["standard_error"])
    inputs = read_inputs(Path(data), split, None, preprocessing_of(shaping, known=network in NAMES))
    images = division(len(inputs.images.labels), taken["calibrate"], limit)
    classifier = open_classifier(network, checkpoint, inputs.sample, inputs.classes, taken["output"])
    bench = bench_of(classifier, inputs, images.evaluated)
    plans = network_plans(
        bench.weights, scheme, bits, layers=taken["layers"], layer_bits=taken["layer_bits"], options=asked.options
    )
    say(f"accuracy {np.mean(bench.before == bench.labels):.2%} on the first {images.evaluated} images")
    how = How(
        confidence=share("confidence", confidence),
        goal=goal,
        networks=None if networks is None else whole("networks", networks, 2, MOST_DRAWS + 1),
        seed=seed_of(seed),
    )
    if blind:
        scale = posterior_scale(bench, images, taken["temperature"])
        return [bench.unlabelled(plan, how, scale, taken["labelled"]) for plan in plans]
    return [bench.actual(plan, how) if errors == "actual" else bench.expected(plan, how) for plan in plans]


class How(NamedTuple):
    """Confidence of the interval; standard error of the mean over errors at which signs stop; networks drawn, or None; seed."""

    confidence: float
    goal: float
    networks: int | None
    seed: int


class Scale(NamedTuple):
    """The temperature of the clean network's posteriors, and the standard deviation of its logarithm."""

    temperature: float
    log_error: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A network and the images it is run on: labels (n,), clean logits (n, K) and
    decisions (n,), its weights by name."""

    classifier: TorchClassifier
    inputs: Inputs
    labels: np.ndarray
    clean: np.ndarray
    before: np.ndarray
    weights: dict[str, Weight]
    classes: int
    provenance: dict[str, Any]

    def logits(self, watch: "RandomSigns | None" = None) -> np.ndarray:
        """(n, K) of all images, under a watch if one is given."""
        return _logits(self.classifier, self.inputs, slice(0, len(self.labels)), watch)

    def compressed(self, plan: Plan) -> dict[str, Compressed]:
        """The weights of a plan, by name."""
        return {name: tensor.compress(self.weights[name].values) for name, tensor in plan.tensors.items()}

    def actual(self, plan: Plan, how: How) -> Record:
        """The one network that a plan makes."""
        tensors = self.compressed(plan)
        with self.replaced({name: tensor.weights for name, tensor in tensors.items()}):
            after = decide(self.logits())
        seen = Decisions(self.labels, self.before, after, list(range(self.classes)))
        return counted(seen, self.fields(plan, tensors), how.confidence, self.provenance)

    def unlabelled(self, plan: Plan, how: How, scale: Scale, labelled: int | None) -> Record:
        """The one network, by posteriors of the clean one in the place of labels, corrected by the labels of the first images
        where so many are asked for (prediction-powered inference, Angelopoulos et al. 2023)."""
        tensors = self.compressed(plan)
        with self.replaced({name: tensor.weights for name, tensor in tensors.items()}):
            after = decide(self.logits())
        n, rows = len(after), np.arange(len(after))
        posterior = softmax(self.clean / scale.temperature, 1)
        mean = np.sum(posterior * self.clean, 1, keepdims=True)
        slope = posterior * (mean - self.clean) / scale.temperature
        right, right_after = (posterior[rows, decisions] for decisions in (self.before, after))
        lost, moved = right - right_after, float(np.mean(slope[rows, self.before] - slope[rows, after]))
        variance = float(lost.var() / n) + (moved * scale.log_error) ** 2
        D, risk = float(lost.mean()), 1 - float(right.mean())
        if labelled is not None:
            some = slice(0, whole("labelled", labelled, 2, n + 1))
            was, is_now = (self.labels[some] == decisions[some] for decisions in (self.before, after))
            wrong = was.astype(float) - is_now - lost[some]
            D, risk = D + float(wrong.mean()), risk - float(np.mean(was - right[some]))
            variance = float(lost.var() / n + wrong.var(ddof=1) / len(wrong))
        error, F = float(np.sqrt(variance)), float(np.mean(self.before != after))
        half = float(-ndtri((1 - how.confidence) / 2)) * error
        flips_error = float(np.sqrt(F * (1 - F) / n))
        priors = posterior.mean(0)
        recalls = [
            np.bincount(decisions, weights=x, minlength=self.classes) / n / np.maximum(priors, 1e-300)
            for decisions, x in ((self.before, right), (after, right_after))
        ]
        return Record(
            **self.fields(plan, tensors),
            errors="actual",
            method="posteriors" if labelled is None else "posteriors_corrected",
            risk_before=risk,
            risk_after=risk + D,
            distortion=D,
            interval=(D - half, D + half),
            confidence=how.confidence,
            interval_sources={"network": 0.0, "statistics": error, "test_set": 0.0, "model": 0.0},
            flip_rate=F,
            per_class=class_fields(priors, *recalls),
            numerical_error=0.0,
            risk_before_error=NORMAL_95 * float(np.sqrt(right.var() / n)),
            flip_rate_error=NORMAL_95 * flips_error,
            standard_error=error,
            flip_rate_standard_error=flips_error,
            n=n,
            provenance={**self.provenance, "temperature": scale.temperature, "labelled": labelled},
        )

    def fields(self, plan: Plan, tensors: Mapping[str, Compressed]) -> dict[str, Any]:
        """Of a record, what the compression alone determines."""
        breakdown = {kind: sum(tensor.rate_breakdown[kind] for tensor in tensors.values()) for kind in BREAKDOWN}
        return network_fields(plan, breakdown, sum(tensor.weights.size for tensor in tensors.values()))

    def replaced(self, weights: Mapping[str, np.ndarray]) -> "_Replaced":
        """The network with other values (rows, columns) of some weights, inside a ``with`` block."""
        return _Replaced(self.classifier.model, {name: (self.weights[name], values) for name, values in weights.items()})

    def expected(self, plan: Plan, how: How) -> Record:
        """The mean over independent uniform errors in +-step/2 of every entry."""
        tensors = self.compressed(plan)
        afters: list[np.ndarray] = []
        most = MOST_DRAWS if how.networks is None else how.networks
        for draw in progress(range(most), total=how.networks, what="draws", unit="draw"):
            rng = np.random.default_rng([how.seed, draw])
            errors = {name: rng.uniform(-0.5, 0.5, tensor.weights.shape) * tensor.steps for name, tensor in tensors.items()}
            if how.networks is None:
                afters.append(decide(self.logits(self.signs(errors, rng))))
            else:
                with self.replaced({name: self.weights[name].values + error for name, error in errors.items()}):
                    afters.append(decide(self.logits()))
            if how.networks is None and len(afters) >= FEWEST_DRAWS:
                losses = np.mean(np.array(afters) != self.labels, 1)
                if losses.std(ddof=1) / np.sqrt(len(losses)) <= how.goal:
                    break
        return self._averaged(np.array(afters), self.fields(plan, tensors), how)

    def signs(self, errors: Mapping[str, np.ndarray], rng: np.random.Generator) -> "RandomSigns":
        """Shows every image the errors (rows, columns) with random signs of its own."""
        model, added = self.classifier.model, {}
        parameters = dict(model.named_parameters())
        for name, error in errors.items():
            values = torch.from_numpy(error).to(parameters[name].dtype)
            added[name] = self.weights[name].rows.back(values, parameters[name]).contiguous()
        return RandomSigns(model, added, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def _averaged(self, afters: np.ndarray, fields: dict[str, Any], how: How) -> Record:
        """The record of draws of decisions (draws, n)."""
        n, draws = len(self.labels), len(afters)
        wrong = self.before != self.labels
        losses = np.mean(afters != self.labels, 1) - wrong.mean()
        flips = np.mean(afters != self.before, 1)
        D, F = float(losses.mean()), float(flips.mean())
        errors = [float(x.std(ddof=1) / np.sqrt(draws)) for x in (losses, flips)]
        change = np.mean((afters != self.labels).astype(float) - wrong, 0)
        test_set = float(np.sqrt(max(np.mean(change**2) - D**2, 0.0) / n))
        half = NORMAL_95 * errors[0]
        share_of = np.bincount(self.labels, minlength=self.classes)
        right = [
            np.bincount(self.labels, weights=x, minlength=self.classes) / np.maximum(share_of, 1)
            for x in (~wrong, np.mean(afters == self.labels, 0))
        ]
        return Record(
            **fields,
            errors="expected",
            method="random_signs" if how.networks is None else "networks_drawn",
            risk_before=float(wrong.mean()),
            risk_after=float(wrong.mean()) + D,
            distortion=D,
            interval=(D - half, D + half),
            confidence=how.confidence,
            interval_sources={
                "network": 0.0 if how.networks is None else float(losses.std(ddof=1)),
                "statistics": 0.0,
                "test_set": test_set,
                "model": 0.0,
            },
            flip_rate=F,
            per_class=class_fields(share_of / n, *right),
            numerical_error=0.0,
            risk_before_error=NORMAL_95 * float(np.sqrt(wrong.mean() * (1 - wrong.mean()) / n)),
            flip_rate_error=NORMAL_95 * errors[1],
            standard_error=errors[0],
            flip_rate_standard_error=errors[1],
            n=n * draws,
            provenance={**self.provenance, "draws": draws, "seed": how.seed},
        )


class _Replaced:
    """Parameters with other values inside a ``with`` block; the old ones are back after it."""

    def __init__(self, model: torch.nn.Module, weights: Mapping[str, tuple[Weight, np.ndarray]]):
        self.parameters = dict(model.named_parameters())
        self.weights = weights
        self.kept: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        for name, (weight, values) in self.weights.items():
            parameter = self.parameters[name]
            self.kept[name] = parameter.detach().clone()
            parameter.data.copy_(weight.rows.back(torch.from_numpy(values), parameter))

    def __exit__(self, *_: object) -> None:
        for name, values in self.kept.items():
            self.parameters[name].data.copy_(values)


class RandomSigns(Watch):
    """Adds r * (E (s * x)) to every operation whose weight has errors E, r and s random signs of the output and input channels,
    of each image and tensor its own; ``start`` draws them anew for a batch."""

    def __init__(self, model: torch.nn.Module, errors: Mapping[str, torch.Tensor], generator: torch.Generator):
        super().__init__(model, self._noisy)
        self.errors, self.generator = errors, generator
        self.images = 1
        self.drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def start(self, images: int) -> None:
        self.images, self.drawn = images, {}

    def _noisy(self, operation: Operation) -> torch.Tensor:
        result, x, error = operation(), operation.inputs, self.errors.get(operation.tensor)
        if error is None:
            return result
        axis = 1 if operation.kind in SPATIAL else -1
        if operation.tensor not in self.drawn:
            self.drawn[operation.tensor] = (self._signs(x.shape[axis]), self._signs(result.shape[axis]))
        taken, given = (
            _along(signs, like, axis) for signs, like in zip(self.drawn[operation.tensor], (x, result), strict=True)
        )
        return result + operation(x * taken, error.T if operation.turned else error, bias=False) * given

    def _signs(self, channels: int) -> torch.Tensor:
        return 2.0 * torch.randint(0, 2, (self.images, channels), generator=self.generator) - 1


def _along(signs: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """Signs (images, channels) as what multiplies a tensor whose channels lie on an axis; an image may be several rows."""
    own = signs.repeat_interleave(len(like) // len(signs), 0).to(like.dtype)
    shape = [1] * like.ndim
    shape[0], shape[axis] = own.shape
    return own.reshape(shape)


def bench_of(classifier: TorchClassifier, inputs: Inputs, n: int) -> Bench:
    """The network run clean on the first n images, and its weights found."""
    operations: list[Operation] = []

    def note(operation: Operation) -> torch.Tensor:
        operations.append(operation)
        return operation()

    with torch.inference_mode(), Watch(classifier.model, note):
        classifier.logits(inputs.batch(slice(0, 1), classifier.channels))
    weights = weights_of(operations, classifier.model)
    if not weights:
        raise InputError(f"{classifier.name}: expected convolutions or linear layers, found none whose weight is a parameter")
    logits = _logits(classifier, inputs, slice(0, n), None)
    labels, K = inputs.images.labels[:n], logits.shape[1]
    if labels.max() >= K:
        raise InputError(f"labels: expected 0 to {K - 1} for the {K} classes of {classifier.name}, got {labels.max()}")
    return Bench(
        classifier=classifier,
        inputs=inputs,
        labels=labels,
        clean=logits,
        before=decide(logits),
        weights={weight.name: weight for weight in weights},
        classes=K,
        provenance={
            "by": f"simulate.run {version()}",
            "network": classifier.name,
            "files_sha256": classifier.files,
            **inputs.images.source,
            **inputs.preprocessing.as_dict(),
            "evaluated": n,
            "date": datetime.date.today().isoformat(),
        },
    )


def _logits(classifier: TorchClassifier, inputs: Inputs, part: slice, watch: RandomSigns | None) -> np.ndarray:
    """(n, K) of the images of a part."""
    found, size = [], inputs.batch_size
    for first in range(part.start, part.stop, size):
        images = inputs.batch(slice(first, min(first + size, part.stop)), classifier.channels)
        with torch.inference_mode():
            if watch is None:
                logits = classifier.logits(images)
            else:
                watch.start(len(images))
                with watch:
                    logits = classifier.logits(images)
        if not torch.isfinite(logits).all():
            raise InputError(f"{classifier.name}: expected finite logits, got NaN or infinity from image {first} on")
        found.append(logits.double().numpy())
    return np.concatenate(found)


def posterior_scale(bench: Bench, images: Division, temperature: float | None) -> Scale:
    """The temperature given, or the likeliest for the labels of the images that calibrate.

    Raises:
        InputError: no image calibrates, or their labels give none.
    """
    if temperature is not None:
        return Scale(temperature, 0.0)
    total = len(bench.inputs.images.labels)
    if images.calibrating == total:
        raise InputError("calibrate: expected images to fit the temperature on, or a --temperature, got none")
    logits = _logits(bench.classifier, bench.inputs, slice(images.calibrating, total), None)
    return _fitted_scale(logits, bench.inputs.images.labels[images.calibrating :])


def _fitted_scale(logits: np.ndarray, labels: np.ndarray) -> Scale:
    """The temperature of least cross entropy, its error by the curvature in log T."""
    logits = logits - logits.mean(1, keepdims=True)
    rows, centre = np.arange(len(labels)), np.log(max(float(np.std(logits)), 1e-300))

    def cost(log_temperature: float) -> float:
        return -float(log_softmax(logits * np.exp(-log_temperature), 1)[rows, labels].sum())

    found = float(np.asarray(minimize_scalar(cost, bounds=(centre - WIDEST, centre + WIDEST), method="bounded").x))
    p = softmax(logits * np.exp(-found), 1)
    variance = np.sum(p * logits**2, 1) - np.sum(p * logits, 1) ** 2  # Fisher's information of log T, times T^2
    information = float(variance.sum()) * np.exp(-2 * found)
    if abs(found - centre) > WIDEST - 0.01 or information <= 0:
        raise InputError(
            "calibrate: expected images whose labels fit a temperature, got too few or all right: give --temperature"
        )
    return Scale(float(np.exp(found)), 1 / np.sqrt(information))
