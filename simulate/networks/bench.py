"""A real network on a bench: run on images with its weights compressed or given errors, its decisions counted or weighed.

The actual network has its weights replaced by the compressed ones. The expected one has independent uniform errors in +-step/2:
of networks drawn, or by random signs (Wen et al., "Flipout", ICLR 2018). With r, s random signs of the output and input
channels of each image, W x + r * (E (s * x)) shows every image errors of the same law, nearly independent of those that the
other images see, so that one draw says as much of the mean as many networks.
"""

import datetime
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri, softmax

from simulate.estimates import NORMAL_95, Decisions, counted
from simulate.networks.inputs import Division, Inputs, labels_of
from simulate.networks.posteriors import Scale, fitted_scale
from simulate.networks.runner import Disturbance, Grid, Runner
from simulate.networks.weights import Weight
from theory.setting.checks import whole
from theory.setting.command_line import progress
from theory.setting.errors import InputError
from theory.setting.plan import Plan
from theory.setting.problem import decide
from theory.setting.record import Record, class_fields, tensor_fields, version
from theory.setting.schemes import Compressed

FEWEST_DRAWS, MOST_DRAWS = 4, 4096


Decided = tuple[dict[str, Compressed], np.ndarray]  # the weights of a plan by name, and what the network decides (n,)


class How(NamedTuple):
    """Confidence of the interval; standard error of the mean over errors at which signs stop; networks drawn, or None; seed."""

    confidence: float
    goal: float
    networks: int | None
    seed: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A network and the images it is run on: labels (n,), clean logits (n, K) and decisions (n,), its weights by name.

    Of inputs that are rounded ``grids`` has step, zero point and bits, by the weight that takes them; batch norms are
    ``recalibrating`` on these images, if they are.
    """

    runner: Runner
    inputs: Inputs
    labels: np.ndarray
    clean: np.ndarray
    before: np.ndarray
    classes: int
    provenance: dict[str, Any]
    grids: dict[str, Grid] = field(default_factory=dict)
    recalibrating: slice | None = None

    @property
    def weights(self) -> dict[str, Weight]:
        """By name."""
        return self.runner.weights

    def logits(self, plan: Plan, errors: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> np.ndarray:
        """(n, K) of all images with the weights as they are, the inputs of a plan's layers rounded where they are to be, and
        errors (rows, columns) of weights shown with random signs where they are given."""
        grids = {name: grid for name, grid in self.grids.items() if name in plan.tensors}
        disturbance, part = Disturbance(grids, errors or {}, seed), self.recalibrating
        with nullcontext() if part is None else self.runner.recalibrated(self.inputs, part, disturbance):
            return self.runner.run(self.inputs, slice(0, len(self.labels)), disturbance)

    def recalibrating_on(self, images: Division) -> "Bench":
        """With batch norms recalibrated on the images that calibrate; what that does to the clean network is noted.

        Raises:
            InputError: no image calibrates.
        """
        total = len(self.inputs.images.labels)
        if images.calibrating == total:
            raise InputError("calibrate: expected images to recalibrate batch norms on, got none")
        bench = replace(self, recalibrating=slice(images.calibrating, total))
        flips = float(np.mean(decide(bench.logits(Plan(tensors={}))) != self.before))
        return replace(
            bench, provenance={**self.provenance, "recalibrated_on": total - images.calibrating, "clean_flips": flips}
        )

    def compressed(self, plan: Plan) -> dict[str, Compressed]:
        """The weights of a plan, by name."""
        return {name: tensor.compress(self.weights[name].values) for name, tensor in plan.tensors.items()}

    def decided(self, plan: Plan) -> Decided:
        """The weights of a plan, and what the network with them decides, (n,)."""
        tensors = self.compressed(plan)
        with self.runner.replaced({name: tensor.weights for name, tensor in tensors.items()}):
            return tensors, decide(self.logits(plan))

    def actual(self, plan: Plan, decided: Decided, how: How) -> Record:
        """The one network that a plan makes, by its labels."""
        tensors, after = decided
        seen = Decisions(self.labels, self.before, after, list(range(self.classes)))
        return counted(seen, tensor_fields(plan, tensors), how.confidence, self.provenance)

    def unlabelled(self, plan: Plan, decided: Decided, how: How, scale: Scale, labelled: int | None) -> Record:
        """The one network, by posteriors of the clean one in the place of labels, corrected by the labels of the first images
        where so many are asked for (prediction-powered inference, Angelopoulos et al. 2023)."""
        tensors, after = decided
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
            **tensor_fields(plan, tensors),
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

    def expected(self, plan: Plan, how: How) -> Record:
        """The mean over independent uniform errors in +-step/2 of every entry.

        Raises:
            InputError: a scheme without a step.
        """
        plan.check_stepped()
        afters: list[np.ndarray] = []
        most = MOST_DRAWS if how.networks is None else how.networks
        for logits in progress(self.drawn(plan, how, most), total=how.networks, what="draws", unit="draw"):
            afters.append(decide(logits))
            if how.networks is None and len(afters) >= FEWEST_DRAWS:
                losses = np.mean(np.array(afters) != self.labels, 1)
                if losses.std(ddof=1) / np.sqrt(len(losses)) <= how.goal:
                    break
        return self._averaged(np.array(afters), tensor_fields(plan, self.compressed(plan)), how)

    def drawn(self, plan: Plan, how: How, draws: int) -> Iterator[np.ndarray]:
        """(n, K) logits of one draw of errors after the other: of networks drawn, or by random signs."""
        tensors = self.compressed(plan)
        for draw in range(draws):
            rng = np.random.default_rng([how.seed, draw])
            errors = {name: rng.uniform(-0.5, 0.5, tensor.weights.shape) * tensor.steps for name, tensor in tensors.items()}
            if how.networks is None:
                yield self.logits(plan, errors, int(rng.integers(2**62)))
            else:
                with self.runner.replaced({name: self.weights[name].values + error for name, error in errors.items()}):
                    yield self.logits(plan)

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
        half = float(-ndtri((1 - how.confidence) / 2)) * errors[0]
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


def bench_of(runner: Runner, inputs: Inputs, n: int) -> Bench:
    """The network run clean on the first n images, and its weights found unless they were.

    Raises:
        InputError: no weights, or labels that the network does not have.
    """
    if not runner.weights:
        runner = replace(runner, weights=runner.find_weights(inputs))
    if not runner.weights:
        raise InputError(f"{runner.name}: expected convolutions or linear layers, found none whose weight is a parameter")
    logits = runner.run(inputs, slice(0, n))
    K = logits.shape[1]
    return Bench(
        runner=runner,
        inputs=inputs,
        labels=labels_of(inputs, n, K, runner.name),
        clean=logits,
        before=decide(logits),
        classes=K,
        provenance={
            "by": f"simulate.run {version()}",
            "network": runner.name,
            "files_sha256": runner.files,
            **inputs.images.source,
            **inputs.preprocessing.as_dict(),
            "evaluated": n,
            "date": datetime.date.today().isoformat(),
        },
    )


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
    logits = bench.runner.run(bench.inputs, slice(images.calibrating, total))
    return fitted_scale(logits, bench.inputs.images.labels[images.calibrating :])
