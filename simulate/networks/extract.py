"""``simulate extract``: the inputs of a real network's last layer, its logits and the labels of the images."""

import datetime
import hashlib
import json
from pathlib import Path

import numpy as np

from simulate.networks.cifar_resnet import MEAN, STD, batches, load
from simulate.networks.images import CLASS_NAMES, read_cifar10
from theory.setting.door import progress, say
from theory.setting.errors import InputError
from theory.setting.files import Features, write_arrays
from theory.setting.problem import decide
from theory.setting.record import version

BATCH = 250
DISAGREEMENT = 1e-3


def extract(
    *,
    network: str,
    checkpoint: Path | str,
    data: Path | str,
    out: Path | str | None = None,
    split: str = "test",
    limit: int | None = None,
    expected_accuracy: float | None = None,
) -> Features:
    """Run a CIFAR ResNet on CIFAR-10 and keep the inputs of its last layer.

    W z + b is compared with the network's own logits on every batch. The accuracy is printed beside the checkpoint's own
    where that is stored; one near chance, or more than a point away, is a warning that names the likely causes.

    Args:
        network: ``resnet20``, 32, 44, 56 or 110. checkpoint: its file, tensors only.
        data: the folder or archive of CIFAR-10. split: ``test`` or ``train``. limit: only the first images.
        out: where to write the features file, if anywhere.
        expected_accuracy: a fraction; an accuracy more than one point away is refused.

    Returns:
        Features float32 (n, 64), logits, labels, weights, bias, class names, provenance.

    Raises:
        InputError: see :func:`simulate.networks.cifar_resnet.load` and :func:`simulate.networks.images.read_cifar10`.
    """
    model, said = load(network, checkpoint)
    images = read_cifar10(data, split=split, limit=limit)
    weights = model.linear.weight.detach().numpy().astype(np.float64)
    bias = model.linear.bias.detach().numpy().astype(np.float64)

    def one(x):
        z = model.features(x)
        return z.numpy(), model.linear(z).numpy()

    chunks = [images.pixels[i : i + BATCH] for i in range(0, len(images.labels), BATCH)]
    features, logits = [], []
    for chunk in progress(chunks, what="images", unit="batch"):
        ((z, own),) = batches(chunk, BATCH, one)
        gap = np.abs(z.astype(np.float64) @ weights.T + bias - own).max()
        if gap > DISAGREEMENT * max(1.0, np.abs(own).max()):
            raise InputError(f"{checkpoint}: expected W z + b to be the network's logits, got a difference of {gap:.3g}")
        features.append(z)
        logits.append(own)
    z, own = np.concatenate(features), np.concatenate(logits)
    accuracy = float(np.mean(decide(own) == images.labels))
    stated = _stated(said)
    _report(accuracy, stated, len(weights), images.source)
    if expected_accuracy is not None and abs(accuracy - expected_accuracy) > 0.01:
        raise InputError(
            f"expected_accuracy: expected {expected_accuracy:.4f} within 0.01, got {accuracy:.4f}: check the "
            "preprocessing, the order of the labels and the split"
        )
    provenance = {
        "source": "extract",
        "network": network,
        "checkpoint": Path(checkpoint).name,
        "checkpoint_sha256": hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
        **images.source,
        "mean": MEAN,
        "std": STD,
        "accuracy": accuracy,
        "checkpoint_says": said,
        "date": datetime.date.today().isoformat(),
        "by": f"simulate.extract {version()}",
    }
    result = Features(
        features=z,
        labels=images.labels,
        weights=weights,
        bias=bias,
        logits=own.astype(np.float64),
        class_names=CLASS_NAMES,
        source_bits=32,
        provenance=provenance,
    )
    if out is not None:
        write_arrays(
            out,
            {
                "features": z,
                "labels": images.labels,
                "weights": weights.astype(np.float32),
                "bias": bias.astype(np.float32),
                "logits": own,
                "class_names": np.array(CLASS_NAMES),
                "provenance": np.array(json.dumps(provenance)),
            },
        )
    return result


def _stated(said: dict) -> float | None:
    """The accuracy a checkpoint states, a fraction."""
    if isinstance(said.get("test_error"), float):
        return 1 - said["test_error"]
    return said["best_prec1"] / 100 if isinstance(said.get("best_prec1"), float) else None


def _report(accuracy: float, stated: float | None, K: int, source: dict) -> None:
    beside = "" if stated is None else f"; the checkpoint says {stated:.2%}"
    say(f"accuracy {accuracy:.2%} on {source['images']} {source['split']} images of {source['data']}{beside}")
    if accuracy < 2 / K:
        say(f"warning: accuracy {accuracy:.2%} is near chance (1 in {K}): check the preprocessing and the order of the labels")
    elif stated is not None and abs(accuracy - stated) > 0.01 and source["split"] == "test":
        say(
            "warning: that is more than one point from what the checkpoint says: check the preprocessing and the order of the "
            "labels"
        )
