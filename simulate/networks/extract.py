"""``simulate extract``: the inputs of a real network's last layer, its logits and the labels of the images."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np

from simulate.networks.inputs import Inputs, preprocessing_of, read_inputs
from simulate.networks.network import NAMES, Network, Sample, disagreement
from theory.setting.archive import check_place, write_arrays
from theory.setting.command_line import say
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import decide
from theory.setting.record import version

FILES = (".keras", ".h5", ".hdf5", ".onnx")


def extract(
    *,
    network: str,
    checkpoint: Path | str | None = None,
    data: Path | str,
    out: Path | str | None = None,
    split: str = "test",
    limit: int | None = None,
    expected_accuracy: float | None = None,
    output: str | None = None,
    **preprocessing: Any,
) -> Features:
    """Run a classifier on labelled images and keep the inputs of its last linear layer.

    That layer is found by running (:mod:`simulate.networks.network`), and W z + b is compared with the network's own output on
    every batch. The accuracy is printed beside the checkpoint's own where that is stored; one near chance, or more than a point
    away, is a warning that names the likely causes.

    Args:
        network: ``resnet20``, 32, 44, 56 or 110; ``module:factory`` for any PyTorch classifier; a ``.keras``, ``.h5`` or
            ``.onnx`` file; a TensorFlow SavedModel folder.
        checkpoint: the file of a PyTorch network's weights: .pt, .th (tensors only) or .safetensors.
        data: CIFAR-10 or CIFAR-100, folder or archive, binary or Python version; or a folder of one folder a class; or, with
            ``labels``, a folder of images.
        split: ``test`` or ``train``. limit: only the first images.
        out: where to write the features file, if anywhere.
        expected_accuracy: a fraction; an accuracy more than one point away is refused.
        output: the name or number of the logits among several outputs (default: the one as wide as there are classes).
        preprocessing: ``labels`` and ``class_index`` of images in folders (:func:`simulate.networks.folders.read_folder`);
            ``mean`` and ``std`` of pixel values scaled to 0..1, one number or one a channel: the network sees (x - mean)/std
            (default: those of the named networks, else 0 and 1); ``resize``, ``crop``, ``interpolation``
            (:class:`simulate.networks.folders.Shaping`).

    Returns:
        Features (n, d) in single precision, logits W z + b, labels, weights, bias, class names, provenance.

    Raises:
        InputError: images or network that can't be read, no linear head, labels beyond the network's classes, another accuracy.
    """
    shaping = preprocessing_of(preprocessing, known=network in NAMES)
    check_network(network, checkpoint)
    if out is not None:
        check_place(out, ".npz", reads=[checkpoint, network, shaping.labels, shaping.class_index])
    inputs = read_inputs(Path(data), split, limit, shaping)
    images = inputs.images
    opened = _opened(network, checkpoint, inputs.sample, inputs.classes, output)
    features, logits = _run(opened, inputs)
    head, K = opened.head, max(2, len(opened.head.weights))
    if images.labels.max() >= K:
        raise InputError(
            f"labels: expected 0 to {K - 1} for the {K} classes of {network}, got {images.labels.max()}: other classes"
        )
    accuracy = float(np.mean(decide(logits) == images.labels))
    stated = _stated(opened.said)
    _report(accuracy, stated, K, images.source, missing=K - len(np.unique(images.labels)), limited=limit is not None)
    if expected_accuracy is not None and abs(accuracy - expected_accuracy) > 0.01:
        raise InputError(
            f"expected_accuracy: expected {expected_accuracy:.4f} within 0.01, got {accuracy:.4f}: check the "
            "preprocessing, the order of the labels and the split"
        )
    names = images.class_names if len(images.class_names) == K else tuple(str(k) for k in range(K))
    provenance = {
        "source": "extract",
        "network": opened.name,
        "files_sha256": opened.files,
        "output": head.kind,
        **images.source,
        **shaping.as_dict(),
        "accuracy": accuracy,
        "checkpoint_says": opened.said,
        "date": datetime.date.today().isoformat(),
        "by": f"simulate.extract {version()}",
    }
    kind = {16: np.float16, 64: np.float64}.get(opened.source_bits, np.float32)
    result = Features(
        features=features,
        labels=images.labels,
        weights=head.weights.astype(kind).astype(np.float64),
        bias=head.bias.astype(np.float32).astype(np.float64),
        logits=logits,
        class_names=names,
        source_bits=opened.source_bits,
        provenance=provenance,
    )
    if out is not None:
        write_arrays(
            out,
            {
                "features": features,
                "labels": images.labels,
                "weights": head.weights.astype(kind),
                "bias": head.bias.astype(np.float32),
                "logits": logits.astype(np.float32),
                "class_names": np.array(names),
                "provenance": np.array(json.dumps(provenance)),
            },
        )
    return result


def check_network(network: str, checkpoint: Path | str | None) -> None:
    """What can be said before an image is read."""
    suffix = Path(network).suffix.lower()
    if suffix in FILES:
        if checkpoint is not None:
            raise InputError(f"checkpoint: expected none beside {network}, which holds its weights, got {checkpoint}")
        if not Path(network).is_file():
            raise InputError(f"{network}: expected a {suffix} file, found none")
    elif Path(network).is_dir():
        if not (Path(network) / "saved_model.pb").is_file():
            raise InputError(f"{network}: expected a SavedModel folder, found no saved_model.pb in it")
        if checkpoint is not None:
            raise InputError(f"checkpoint: expected none beside {network}, which holds its weights, got {checkpoint}")
    elif network not in NAMES and ":" not in network:
        known = f"{', '.join(NAMES)}, module:factory, a {', '.join(FILES)} file, or a SavedModel folder"
        raise InputError(f"network: expected one of {known}, got {network!r}")
    else:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError:
            raise InputError(f"{network} needs PyTorch: pip install 'compressed-network-theory[torch]'") from None
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise InputError(f"{checkpoint}: expected a checkpoint file, found none")


def _opened(network: str, checkpoint: Path | str | None, sample: Sample, classes: int, output: str | None) -> Network:
    suffix, which = Path(network).suffix.lower(), (sample, classes, output)
    if suffix == ".onnx":
        from simulate.networks.onnx_networks import open_onnx

        return open_onnx(network, *which)
    if Path(network).is_dir():
        from simulate.networks.tensorflow_networks import open_saved_model

        return open_saved_model(network, *which)
    if suffix in FILES:
        from simulate.networks.keras_networks import open_keras

        return open_keras(network, *which)
    from simulate.networks.torch_networks import open_torch

    return open_torch(network, checkpoint, *which)


def _run(opened: Network, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) in single and logits (n, K) in double precision."""
    features, logits, head = [], [], opened.head
    for first, batch in inputs.batches(opened.channels):
        z, output = opened.run(batch)
        own = z.astype(np.float64) @ head.weights.T.astype(np.float64) + head.bias
        if not disagreement(own, output, head.kind, opened.precision) <= 1:
            raise InputError(
                f"{opened.name}: expected W z + b to be the network's {head.kind} on every batch, got another output from "
                f"image {first} on"
            )
        features.append(z.astype(np.float32))
        logits.append(own)
    return np.concatenate(features), np.concatenate(logits)


def _stated(said: dict) -> float | None:
    """The accuracy a checkpoint states, a fraction."""
    if isinstance(said.get("test_error"), float):
        return 1 - said["test_error"]
    return said["best_prec1"] / 100 if isinstance(said.get("best_prec1"), float) else None


def _report(accuracy: float, stated: float | None, K: int, source: dict, *, missing: int, limited: bool) -> None:
    beside = "" if stated is None else f"; the checkpoint says {stated:.2%}"
    split = f"{source['split']} " if source["split"] else ""
    say(f"accuracy {accuracy:.2%} on {source['images']} {split}images of {source['data']}{beside}")
    if missing:
        hint = ": --limit takes the first images, class by class" if limited else ""
        say(f"warning: no image of {missing} of the {K} classes{hint}")
    if accuracy < 2 / K:
        say(f"warning: accuracy {accuracy:.2%} is near chance (1 in {K}): check the preprocessing and the order of the labels")
    elif stated is not None and abs(accuracy - stated) > 0.01 and source["split"] == "test":
        say(
            "warning: that is more than one point from what the checkpoint says: check the preprocessing and the order of the "
            "labels"
        )
