"""First order of a PyTorch network: Jacobians of its logits from gradients at the outputs of its operations."""

from dataclasses import dataclass

import numpy as np
import torch

from simulate.networks.follower import Followed, Follower
from simulate.networks.inputs import Inputs
from simulate.networks.jacobians import Trace, entering_gradients, entering_of, jacobian, row_grams, shifts
from simulate.networks.torch_runner import TorchRunner


@dataclass(frozen=True, kw_only=True)
class TorchFollower(Follower):
    """``runner``: of a PyTorch network in single precision, none of whose parameters asks for gradients."""

    runner: TorchRunner

    def follow(self, images, candidates, errors):
        trace, n = Trace(self.runner.classifier.model), len(images)
        with trace.watch:
            logits = self.runner.classifier.logits(images)
        taken, given = trace.gradients(logits, torch.from_numpy(candidates))
        jacobians: dict[str, torch.Tensor] = {}
        for operation, gradient in zip(trace.operations, given, strict=True):
            own = jacobian(operation, gradient, n)
            jacobians[operation.tensor] = jacobians[operation.tensor] + own if operation.tensor in jacobians else own
        grams, moved, entering = [], [], []
        for name, weight in self.runner.weights.items():
            J, scales = jacobians.pop(name), torch.from_numpy(weight.ranges).float()
            grams.append(row_grams(J, scales**2).numpy())
            moved.append(shifts(J, torch.from_numpy(errors[name]), scales).numpy())
        for gradient in entering_gradients(trace.operations, taken).values():
            J = gradient.reshape(len(gradient), n, -1).transpose(0, 1)
            entering.append((J @ J.transpose(1, 2)).numpy())
        return Followed(np.stack(grams, 1), np.stack(moved, 2), np.stack(entering))


def torch_follower(runner: TorchRunner, inputs: Inputs) -> TorchFollower:
    """Of a network whose weights were found."""
    model = runner.classifier.model.float()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trace = Trace(model)
    with trace.watch:
        runner.classifier.logits(inputs.batch(slice(0, 1), runner.channels))
    entering = entering_of(trace.operations)
    largest = max(max(weight.values.size for weight in runner.weights.values()), max(entering.values()))
    return TorchFollower(runner=runner, entering=entering, largest=largest)
