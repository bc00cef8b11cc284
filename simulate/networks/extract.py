"""``simulate extract``: the inputs of a real network's last layer, its logits and the labels of the images."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulate.networks.folders import INTERPOLATIONS, SUFFIXES, Shaping, read_folder
from simulate.networks.images import Images, is_cifar, read_cifar
from simulate.networks.network import MEAN, NAMES, STD, Network, Sample, disagreement
from theory.setting.archive import check_place, write_arrays
from theory.setting.checks import whole
from theory.setting.command_line import progress, say
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import decide
from theory.setting.record import version

BATCH, LARGE_BATCH = 250, 32  # images; of more than LARGE pixels
LARGE = 64 * 64
FILES = (".keras", ".h5", ".hdf5", ".onnx")
LARGEST_SIDE = 2**14  # pixels
TRIED = 32  # images on which the head is found


# how images become what a network takes
PREPROCESSING = ("labels", "class_index", "mean", "std", "resize", "crop", "interpolation")


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
    for name in preprocessing:
        if name not in PREPROCESSING:
            raise InputError(f"{name}: expected one of {', '.join(PREPROCESSING)}, got another option")
    given, known = preprocessing.get, network in NAMES
    centre = _channels("mean", given("mean"), MEAN if known else (0.0,))
    scale = _channels("std", given("std"), STD if known else (1.0,))
    if np.any(scale <= 0):
        raise InputError(f"std: expected positive numbers, got {scale.reshape(-1).tolist()}")
    resize, crop = (x if x is None else whole(name, x, 1, LARGEST_SIDE) for name in ("resize", "crop") for x in (given(name),))
    shaping = Shaping(resize, crop, given("interpolation") or "bilinear")
    if shaping.interpolation not in INTERPOLATIONS:
        raise InputError(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {shaping.interpolation!r}")
    _expected_files(network, checkpoint)
    if out is not None:
        check_place(out, ".npz", reads=[checkpoint, network])
    images = _images(Path(data), split, limit, given("labels"), given("class_index"), shaping)
    spread = np.unique(np.linspace(0, len(images.labels) - 1, TRIED).astype(int))

    def normalized(pixels: np.ndarray, channels: int) -> np.ndarray:
        return _normalized(pixels, channels, centre, scale)

    def sample(channels: int) -> np.ndarray:
        """Images spread over the data: in the order of folders the first are of one class."""
        return normalized(np.concatenate([images.pixels[i : i + 1] for i in spread]), channels)

    classes = len(images.class_names) or int(images.labels.max()) + 1
    opened = _opened(network, checkpoint, sample, classes, output)
    size = int(np.prod(images.pixels[0:1].shape[2:]))
    features, logits = _run(
        opened,
        lambda part: normalized(images.pixels[part], opened.channels),
        len(images.labels),
        BATCH if size <= LARGE else LARGE_BATCH,
    )
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
        "mean": centre.reshape(-1).tolist(),
        "std": scale.reshape(-1).tolist(),
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


def _channels(name: str, given: Sequence[float] | None, otherwise: Sequence[float]) -> np.ndarray:
    """(1 or 3, 1, 1) in single precision."""
    with np.errstate(over="ignore"):
        values = np.array(otherwise if given is None else given, np.float32).reshape(-1)
    if values.size not in (1, 3) or not np.isfinite(values).all():
        raise InputError(f"{name}: expected one finite number or three, got {list(given or ())}")
    return values[:, None, None]


def _normalized(pixels: np.ndarray, channels: int, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n, channels, H, W) from pixels (n, 3, H, W); one channel is the luma of ITU-R 601."""
    if channels == 1:
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        pixels = np.rint(np.tensordot(pixels.astype(np.float32), weights, (1, 0)))[:, None]
    elif channels != 3:
        raise InputError(f"network: expected one that takes images of 1 or 3 channels, got {channels}")
    if max(centre.size, scale.size) > channels:
        raise InputError(f"mean, std: expected one number for a network of one channel, got {max(centre.size, scale.size)}")
    return ((pixels.astype(np.float32) / np.float32(255) - centre) / scale).astype(np.float32)


def _images(data: Path, split: str, limit: int | None, labels, class_index, shaping: Shaping) -> Images:
    if not data.exists():
        raise InputError(f"{data}: expected a folder or an archive of images, found nothing")
    if data.is_dir() and not any(data.iterdir()):
        raise InputError(f"{data}: expected CIFAR's files or folders of images, got an empty folder")
    plain = labels is None and class_index is None and shaping.resize is None and shaping.crop is None
    photos = data.is_dir() and any(path.is_dir() or path.suffix.lower() in SUFFIXES for path in data.iterdir())
    if plain and (is_cifar(data) or not photos):
        return read_cifar(data, split=split, limit=limit)
    return read_folder(data, split=split, limit=limit, labels=labels, class_index=class_index, shaping=shaping)


def _expected_files(network: str, checkpoint: Path | str | None) -> None:
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


def _run(opened: Network, normalized, n: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) in single and logits (n, K) in double precision."""
    features, logits, head = [], [], opened.head
    for first in progress(range(0, n, batch), total=-(-n // batch), what="images", unit="batch"):
        z, output = opened.run(normalized(slice(first, min(first + batch, n))))
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
