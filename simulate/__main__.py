"""``python -m simulate``: synthetic problems, Monte Carlo, real networks."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from theory.setting import interrupt

if __name__ == "__main__":
    interrupt.install("simulate")

import simulate
from theory.setting.command_line import (
    Parser,
    add_json,
    add_network,
    add_question,
    add_row_errors,
    add_seed,
    fraction,
    network_of,
    positive,
    print_json,
    print_table,
    question_of,
    run,
    say,
    show,
    whole_number,
)
from theory.setting.errors import InputError

NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    doors = (
        _add_synthetic,
        _add_train,
        _add_extract,
        _add_linearize,
        _add_fit,
        _add_run,
        _add_measure,
        _add_check,
        _add_compress,
    )
    for add in (*doors, _add_decompress, _add_benchmark):
        add(commands)
    return run(parser, argv)


def _add_synthetic(commands) -> None:
    command = commands.add_parser("synthetic", help="a synthetic Gaussian problem")
    command.add_argument("--classes", type=whole_number(2), metavar="K")
    command.add_argument("--features", type=whole_number(1), metavar="d")
    command.add_argument(
        "--separation",
        type=positive,
        metavar="S",
        help="mean over classes of the Mahalanobis distance of the class mean from the origin (not between two means); your "
        "own means are stretched to it",
    )
    command.add_argument(
        "--distance", type=positive, metavar="D", help="in its place: mean Mahalanobis distance between two class means"
    )
    command.add_argument("--means", metavar="FILE", help="your own, (K, d) as .npy, .csv or .txt; K and d are theirs")
    command.add_argument(
        "--covariance",
        default="shared",
        metavar="WHICH",
        help="shared; unequal: that times U(0.7, 1.4) per class; or a file of your own, (d, d) or (K, d, d) (default shared)",
    )
    command.add_argument(
        "--priors", default="equal", metavar="WHICH", help="equal; unequal: Dirichlet(8); or a file of your own (default equal)"
    )
    command.add_argument(
        "--layer",
        choices=("optimal", "perturbed", "trained"),
        default="optimal",
        help="the Bayes rule of the shared covariance, that plus 0.15 mean|W| N(0, 1), or logistic regression on 20 d samples "
        "(default optimal)",
    )
    command.add_argument(
        "--depth",
        type=whole_number(1),
        default=1,
        metavar="L",
        help="layers of weights: above 1 a dense network with rectifiers",
    )
    command.add_argument("--width", type=whole_number(1), metavar="M", help="units of each hidden layer")
    command.add_argument("--out", required=True, metavar="FILE.npz")
    add_seed(command)

    def work(a: argparse.Namespace) -> None:
        from theory.setting.archive import check_place
        from theory.setting.dense import DenseNetwork
        from theory.setting.files import write_dense, write_statistics

        check_place(a.out, ".npz", reads=[a.means, a.covariance, a.priors])
        names = ("classes", "features", "separation", "distance", "means", "covariance", "priors", "layer", "depth", "width")
        made = simulate.synthetic(seed=a.seed, **{name: getattr(a, name) for name in names})
        write_dense(a.out, made) if isinstance(made, DenseNetwork) else write_statistics(a.out, made)

    command.set_defaults(run=work)


def _add_train(commands) -> None:
    command = commands.add_parser("train", help="train a network on CIFAR-10; goes on after an interruption (extra `torch`)")
    command.add_argument("--network", required=True, metavar="NAME", help=f"{', '.join(NETWORKS)}, or module:factory")
    command.add_argument("--data", required=True, metavar="DIR", help="the folder that holds cifar-10-batches-bin")
    command.add_argument("--epochs", type=whole_number(1), required=True, metavar="E")
    command.add_argument("--out", required=True, metavar="FILE.pt", help="the checkpoint, written after every epoch")
    command.add_argument("--limit", type=whole_number(1), metavar="N", help="only the first N images of each split")
    add_seed(command)
    add_json(command)

    def work(a: argparse.Namespace) -> None:
        result = simulate.train(network=a.network, data=a.data, epochs=a.epochs, out=a.out, seed=a.seed, limit=a.limit)
        print_json(result) if a.json else print(f"{result['checkpoint']}: test error {result['test_error']:.2%}")

    command.set_defaults(run=work)


IMAGES = ("network", "checkpoint", "data", "split", "limit", "output")
PREPROCESSING = ("labels", "class_index", "mean", "std", "resize", "crop", "interpolation")


def _add_images(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    """A network, and the images it is run on."""
    command.add_argument(
        "--network",
        required=required,
        help=f"{', '.join(NETWORKS)}; module:factory for any PyTorch classifier; a .keras, .h5 or .onnx file; a "
        "SavedModel folder",
    )
    command.add_argument("--checkpoint", metavar="FILE", help="weights of a PyTorch network: .pt, .th or .safetensors")
    command.add_argument(
        "--data", required=required, metavar="DIR", help="folder or archive of CIFAR-10 or CIFAR-100, or a folder of images"
    )
    command.add_argument("--split", choices=("test", "train"), help="of CIFAR (default test)")
    command.add_argument("--limit", type=whole_number(1), metavar="N", help="only the first N images")
    command.add_argument("--labels", metavar="FILE", help="lines 'image label', for images that are not in one folder a class")
    command.add_argument("--class-index", metavar="FILE", help="folder names to classes, JSON or one a line")
    for name in ("mean", "std"):
        command.add_argument(
            f"--{name}", type=float, nargs="+", metavar="X", help="of pixel values in 0..1, one number or one a channel"
        )
    command.add_argument("--resize", type=whole_number(1), metavar="PIXELS", help="the short side of every image")
    command.add_argument("--crop", type=whole_number(1), metavar="PIXELS", help="the middle of every image")
    command.add_argument("--interpolation", help="bilinear, bicubic, lanczos or nearest (default bilinear)")
    command.add_argument("--output", metavar="NAME", help="the logits among several outputs, by name or number")


def _images_of(a: argparse.Namespace) -> dict[str, Any]:
    """What :func:`_add_images` read, where it was given."""
    return {name: getattr(a, name) for name in (*IMAGES, *PREPROCESSING) if getattr(a, name) is not None}


def _add_calibrate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--calibrate",
        type=whole_number(0),
        metavar="N",
        help="the last images of the split, for ranges and temperature, never evaluated (default 2000, at most half)",
    )


def _add_fold(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--fold",
        action="store_true",
        help="of a network: fold batch norms into the weights that they follow, as integer runtimes do",
    )


def _add_linearize(commands) -> None:
    command = commands.add_parser(
        "linearize",
        help="what errors of every weight of a real network do to its logits, to first order (extra `torch`)",
        description="Follow, image by image and to first order, what errors of every convolution and linear weight do to the "
        "logits: the noise file from which `theory predict` says what compressing all layers costs.",
    )
    _add_images(command)
    _add_calibrate(command)
    command.add_argument("--draws", type=whole_number(2), metavar="M", help="errors common to all images (default 32)")
    _add_fold(command)
    command.add_argument("--out", required=True, metavar="FILE.npz")
    add_seed(command)

    def work(a: argparse.Namespace) -> None:
        given = {name: getattr(a, name) for name in ("calibrate", "draws") if getattr(a, name) is not None}
        simulate.linearize(out=a.out, seed=a.seed, fold=a.fold, **given, **_images_of(a))

    command.set_defaults(run=work)


def _add_extract(commands) -> None:
    command = commands.add_parser(
        "extract", help="features, logits and labels of a real network (extras `torch`, `keras`, `onnx`)"
    )
    _add_images(command)
    command.add_argument(
        "--expected-accuracy", type=fraction, metavar="A", help="refuse an accuracy more than one point away from this fraction"
    )
    command.add_argument("--out", required=True, metavar="FILE.npz")

    def work(a: argparse.Namespace) -> None:
        simulate.extract(out=a.out, expected_accuracy=a.expected_accuracy, **_images_of(a))

    command.set_defaults(run=work)


def _add_fit(commands) -> None:
    command = commands.add_parser(
        "fit",
        help="fit a model of the features of each class, or compare all of them",
        description="Fit a model of the features of each class to labelled features, or with --compare hold all models against "
        "each other on halves of the samples (some minutes).",
    )
    command.add_argument("features", help="a features file (.npz)")
    command.add_argument("--out", metavar="FILE.npz", help="the statistics file; needed but with --compare")
    command.add_argument(
        "--model",
        choices=("gaussian", "mixture", "resampled"),
        default="gaussian",
        help="one Gaussian a class (default), four, or the samples smoothed",
    )
    command.add_argument("--classes", nargs="+", type=int, metavar="I", help="only the samples and rows of these classes")
    command.add_argument("--compare", action="store_true", help="fit every model on one half, check it on the other; say which")
    command.add_argument("--halves", type=whole_number(1), metavar="R", help="random splits for --compare (default 1)")
    add_seed(command)
    add_json(command)

    def work(a: argparse.Namespace) -> None:
        if a.compare:
            from simulate.experiments.models import show

            if a.out:
                raise InputError("--out: expected none with --compare, which fits halves only")
            show(simulate.compare(a.features, classes=a.classes, halves=a.halves or 1, seed=a.seed), as_json=a.json)
            return
        if a.halves:
            raise InputError("--halves: expected none without --compare")
        if not a.out:
            raise InputError("--out: expected a file for the statistics (or --compare), got none")
        problem = simulate.fit(a.features, out=a.out, classes=a.classes, model=a.model)
        what = {"classes": problem.classes, "features": problem.features, "samples": problem.provenance["n"]}
        if a.json:
            print_json([{"out": a.out, "model": a.model, **what, "misfit": problem.misfit}])
            return
        said = ", ".join(f"{n} {name}" for name, n in what.items())
        say(f"{a.out}: {said}, misfit of distortions {problem.misfit:.3f} of the flips")

    command.set_defaults(run=work)


def _add_run(commands) -> None:
    command = commands.add_parser("run", help="the distortion of a compressed layer by Monte Carlo")
    command.add_argument("statistics", nargs="?", help="a statistics file (.npz), or none with --network")
    add_question(command)
    add_network(command)
    _add_images(command, required=False)
    _add_calibrate(command)
    _add_fold(command)
    command.add_argument(
        "--recalibrate",
        action="store_true",
        help="of a network: batch norms of the compressed one have the means and variances of the images that calibrate",
    )
    command.add_argument(
        "--errors",
        choices=("actual", "expected"),
        default="actual",
        help="the one compressed layer, or random layers of the uniform error law (default actual)",
    )
    command.add_argument(
        "--method",
        metavar="NAME",
        help="the sampler by name: see below",
    )
    command.add_argument(
        "--unlabelled", action="store_true", help="of a network: no label of these images is read, posteriors stand for them"
    )
    command.add_argument(
        "--labelled", type=whole_number(2), metavar="N", help="with --unlabelled: labels of N of these images correct the rest"
    )
    command.add_argument(
        "--temperature", type=positive, metavar="T", help="with --unlabelled: of the posteriors (default: calibrated)"
    )
    add_row_errors(command)
    command.more_help = _samplers
    command.add_argument(
        "--test-size", type=whole_number(1), metavar="N", help="say what a test set of N samples would add to the uncertainty"
    )
    command.add_argument("--n", type=whole_number(1), help="feature vectors (default: as good as a million pairs)")
    command.add_argument("--standard-error", type=positive, help="go on until the distortion is known this well")
    command.add_argument("--networks", type=whole_number(2), metavar="M", help="independent networks, with --errors expected")
    add_seed(command)

    def work(a: argparse.Namespace) -> None:
        names = ("errors", "method", "test_size", "n", "standard_error", "networks", "row_errors", "seed")
        law = {name: getattr(a, name) for name in names}
        asked = question_of(a) | network_of(a) | _images_of(a)
        own = ("calibrate", "labelled", "temperature")
        asked |= {name: getattr(a, name) for name in own if getattr(a, name) is not None}
        asked |= {name: True for name in ("unlabelled", "fold", "recalibrate") if getattr(a, name)}
        if (a.statistics is None) == (a.network is None):
            raise InputError("statistics, --network: expected one of the two, got " + ("none" if a.network is None else "both"))
        given = {"statistics": a.statistics} if a.network is None else {}
        show(simulate.run(*given.values(), **law, **asked), as_json=a.json)

    command.set_defaults(run=work)


def _samplers() -> str:
    from simulate.samplers import SAMPLERS

    lines = [f"  {sampler.name} ({', '.join(sampler.errors)}): {sampler.summary}" for sampler in SAMPLERS.values()]
    return "samplers:\n" + "\n".join(lines) + "\n"


def _add_measure(commands) -> None:
    command = commands.add_parser("measure", help="the distortion of a compressed layer on labelled features themselves")
    command.add_argument("features", help="a features file (.npz)")
    add_question(command)
    command.add_argument("--errors", choices=("actual",), default="actual", help="the compressed layer itself")
    command.add_argument(
        "--compressed-by",
        metavar="FILE",
        help="features or statistics whose mean feature corrects the bias, whose range integer inputs have, by which the "
        "optimal step is chosen (default: the features measured)",
    )

    def work(a: argparse.Namespace) -> None:
        show(simulate.measure(a.features, compressed_by=a.compressed_by, **question_of(a)), as_json=a.json)

    command.set_defaults(run=work)


def _add_compress(commands) -> None:
    command = commands.add_parser("compress", help="write the compressed layer of a file as stored bytes")
    command.add_argument("file", help="a features or statistics file (.npz)")
    add_question(command, interval=False)
    command.add_argument("--out", required=True, metavar="FILE.bin", help="where the bytes go")

    def work(a: argparse.Namespace) -> None:
        done = simulate.compress(a.file, out=a.out, **question_of(a))
        if a.json:
            print_json([done])
            return
        kinds = ", ".join(f"{kind} {bits} bits" for kind, bits in done["rate_breakdown"].items() if bits)
        print(
            f"{done['out']}: {done['bytes']} bytes, {done['layer_bytes']} of the layer ({kinds}), {done['bias_bytes']} of the "
            f"bias, {done['header_bytes']} of header; {done['rate']:.4g} bits a weight"
        )

    command.set_defaults(run=work)


def _add_decompress(commands) -> None:
    command = commands.add_parser("decompress", help="the weights and bias that such a file holds")
    command.add_argument("file", help="a file written by compress")
    command.add_argument("--out", required=True, metavar="FILE.npz", help="where weights (float64) and bias go")
    command.set_defaults(run=lambda a: simulate.decompress(a.file, out=a.out) and None)


def _add_check(commands) -> None:
    command = commands.add_parser("check", help="test the hypotheses of the theory on features and weights")
    command.add_argument("features", help="a features file (.npz)")
    add_question(command, scheme="symmetric", bits=[4], interval=False)
    command.add_argument("--training", metavar="FILE.npz", help="features of the training samples: are those tested like them?")
    add_seed(command)

    def work(a: argparse.Namespace) -> None:
        records = simulate.check(a.features, training=a.training, seed=a.seed, **question_of(a))
        if a.json:
            print_json(records)
            return
        for record in records:
            effect, noise = record["effect"], record["effect_standard_error"]
            record["effect, points"] = None if effect is None else round(100 * effect, 3) + 0.0
            record["+- (95 %)"] = round(196 * noise, 3) if noise else None
            record["Holm p"] = record["p_value"]
            record["rejected"] = {True: "no", False: "yes", None: "-"}[record["holds"]]
        print_table(records, ["hypothesis", "bits", "effect, points", "+- (95 %)", "rejected", "Holm p"])
        for record in records:
            print(record["sentence"])

    command.set_defaults(run=work)


def _add_benchmark(commands) -> None:
    command = commands.add_parser("benchmark", help="what the mathematics and the compiled code gain on this machine")
    command.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="counting, known, thousand, grid, orthant, expected, memory, device (default: all, some minutes)",
    )
    add_seed(command)
    add_json(command)

    def work(a: argparse.Namespace) -> None:
        records = simulate.benchmark(a.names, seed=a.seed)
        if a.json:
            print_json(records)
            return
        print(records[0]["device"])
        print_table(records, ["benchmark", "quantity", "value", "unit", "bar", "holds", "note"])

    command.set_defaults(run=work)


if __name__ == "__main__":
    sys.exit(main())
