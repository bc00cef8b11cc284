"""A PyTorch network on the bench: weights replaced, inputs rounded, errors shown with random signs, batch norms changed."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simulate.networks.batch_norm import Recalibrated, folded
from simulate.networks.disturbed import Disturbed, Replaced, input_ranges, logits_of
from simulate.networks.inputs import Inputs
from simulate.networks.jacobians import weights_of
from simulate.networks.operations import Operation, Watch
from simulate.networks.runner import Disturbance, Runner
from simulate.networks.torch_networks import TorchClassifier, open_classifier


@dataclass(frozen=True, kw_only=True)
class TorchRunner(Runner):
    """``classifier``: the network that was opened."""

    framework = "PyTorch"
    classifier: TorchClassifier

    def find_weights(self, inputs):
        operations: list[Operation] = []

        def note(operation: Operation) -> torch.Tensor:
            operations.append(operation)
            return operation()

        watch = Watch(self.classifier.model, note)
        with torch.inference_mode(), watch:
            self.classifier.logits(inputs.batch(slice(0, 1), self.channels))
        watch.check(self.name)
        return {weight.name: weight for weight in weights_of(operations, self.classifier.model)}

    def run(self, inputs, part, disturbance=None):
        return logits_of(self.classifier, inputs, part, self._watch(disturbance))

    def replaced(self, values):
        return Replaced(self.classifier.model, {name: (self.weights[name], rows) for name, rows in values.items()})

    def ranges(self, inputs, part):
        return input_ranges(self.classifier, inputs, part, list(self.weights))

    def folded(self, inputs: Inputs) -> AbstractContextManager[Any]:
        return folded(self.classifier, inputs.sample(self.channels))

    def recalibrated(self, inputs, part, disturbance):
        return Recalibrated(self.classifier, inputs, part, self._watch(disturbance))

    def _watch(self, disturbance: Disturbance | None) -> Disturbed | None:
        """What rounds inputs and shows errors, where there is anything to do."""
        if disturbance is None or not (disturbance.grids or disturbance.errors):
            return None
        generator = torch.Generator().manual_seed(disturbance.seed)
        return Disturbed(self.classifier.model, self._shaped(disturbance.errors), disturbance.grids, generator)

    def _shaped(self, errors: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Errors (rows, columns) shaped as the parameters are."""
        parameters, shaped = dict(self.classifier.model.named_parameters()), {}
        for name, error in errors.items():
            values = torch.from_numpy(error).to(parameters[name].dtype)
            shaped[name] = self.weights[name].rows.back(values, parameters[name]).contiguous()
        return shaped


def open_torch_runner(network: str, checkpoint: Path | str | None, inputs: Inputs, output: str | None) -> TorchRunner:
    """A named CIFAR ResNet or ``module:factory``.

    Raises:
        InputError: a network that can't be read.
    """
    classifier = open_classifier(network, checkpoint, inputs.sample, inputs.classes, output)
    known = {"name": classifier.name, "files": classifier.files, "channels": classifier.channels}
    return TorchRunner(**known, classifier=classifier)
