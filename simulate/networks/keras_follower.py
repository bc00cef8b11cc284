"""First order of a Keras network on its JAX backend: Jacobians of its logits by kernels and by probes at what enters layers,
image by image."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simulate.networks.follower import Followed, Follower
from simulate.networks.inputs import Inputs
from simulate.networks.keras_networks import NHWC, usual_jax
from simulate.networks.keras_runner import KerasRunner, picked
from simulate.networks.network import of_rank


@dataclass(frozen=True, kw_only=True)
class KerasFollower(Follower):
    """``shapes``: of what enters, of one image. ``first``: of every weight the one that first takes what enters it."""

    runner: KerasRunner
    shapes: dict[str, tuple[int, ...]]
    first: dict[str, str]

    def follow(self, images, candidates, errors):
        runner, weights = self.runner, self.runner.weights
        model, kernels = runner.model, {path: runner.layers[path].kernel.value for path in self.runner.weights}
        probes = {name: jnp.zeros(shape, jnp.float32) for name, shape in self.shapes.items()}
        frozen = [variable.value for variable in model.non_trainable_variables]
        trainable = [(variable.path, variable.value) for variable in model.trainable_variables]

        def logits(kernels: dict[str, Any], probes: dict[str, Any], image: Any, chosen: Any) -> Any:
            values = [kernels.get(path, value) for path, value in trainable]

            def probed(path: str, layer: Any, call: Any, x: Any) -> Any:
                # what several layers take is moved by one probe: their effects add
                return call(x + probes[self.first[path]][None])

            with runner.watched(probed):
                returned, _ = model.stateless_call(values, frozen, image[None], training=False)
            return picked(returned, runner.output)[0][chosen]

        x = jnp.asarray(of_rank(images.transpose(NHWC) if runner.last else images, runner.rank))
        with usual_jax():
            both = jax.vmap(jax.jacrev(logits, (0, 1)), (None, None, 0, 0))
            by_kernel, by_probe = both(kernels, probes, x, jnp.asarray(candidates))
            grams, moved = [], []
            for name, weight in weights.items():
                J = jax.vmap(jax.vmap(weight.rows.of))(by_kernel[name])  # (n, C, rows, columns)
                scales = jnp.asarray(weight.ranges, J.dtype)
                by_row = jnp.einsum("ncrp,ndrp->nrcd", J, J)
                grams.append(jnp.einsum("sr,nrcd->sncd", scales**2, by_row))
                moved.append(jnp.einsum("sr,ncrp,rpm->smnc", scales, J, jnp.asarray(errors[name]), optimize=True))
            flat = [by_probe[name].reshape(*by_probe[name].shape[:2], -1) for name in self.entering]
            entering = [jnp.einsum("ncx,ndx->ncd", J, J) for J in flat]
        return Followed(*(np.asarray(jnp.stack(parts, axis)) for parts, axis in ((grams, 1), (moved, 2), (entering, 0))))


def keras_follower(runner: KerasRunner, inputs: Inputs) -> KerasFollower:
    """Of a network whose weights were found."""
    shapes: dict[str, tuple[int, ...]] = {}
    first: dict[str, str] = {}
    taken: list[tuple[Any, str]] = []  # held, so that another one cannot have its identity

    def note(path: str, layer: Any, call: Any, x: Any) -> Any:
        name = next((own for other, own in taken if other is x), path)
        taken.append((x, name))
        first[path] = name
        shapes.setdefault(name, tuple(x.shape[1:]))
        return call(x)

    with runner.watched(note):
        runner.logits(inputs.batch(slice(0, 1), runner.channels))
    entering = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    # Jacobians by all kernels and probes are held together
    largest = sum(weight.values.size for weight in runner.weights.values()) + sum(entering.values())
    return KerasFollower(runner=runner, entering=entering, largest=largest, shapes=shapes, first=first)
