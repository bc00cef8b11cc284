"""``python -m theory``: what the theory predicts."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from theory.setting import interrupt

if __name__ == "__main__":
    interrupt.install("theory")

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
    show,
    whole_number,
)
from theory.setting.schemes import UNIFORM


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="theory", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    command = commands.add_parser(
        "predict",
        help="risk, distortion and flip rate of a compressed layer, with an interval, from statistics alone",
        description="Predict the distortion of a compressed last layer from the statistics of its inputs, or "
        "from features themselves, no hypothesis on their law. "
        "All risks and rates are fractions.",
    )
    command.more_help = _methods
    command.add_argument(
        "statistics",
        help="a statistics file (.npz), from `simulate synthetic` or `simulate fit`; a features file; or a noise file, from "
        "`simulate linearize`",
    )
    add_question(command)
    add_network(command)
    _add_law(command)
    command.add_argument("--method", metavar="NAME", help="one method by name instead of the best: see below")
    add_seed(command)
    command.set_defaults(run=_predict)
    command = commands.add_parser(
        "bits",
        help="the fewest stored bits per weight that keep the loss",
        description="Try every width of every scheme asked for, and say which takes the fewest stored bits per weight and "
        "keeps the loss with the confidence asked for; exit code 3 where none does.",
    )
    command.add_argument("statistics", help="a statistics or a features file (.npz)")
    add_question(command, several=True)
    command.add_argument(
        "--max-loss", type=float, required=True, metavar="LOSS", help="the largest distortion, a fraction (0.01: one point)"
    )
    _add_law(command)
    add_seed(command)
    command.add_argument("--verbose", action="store_true", help="also the record of every width, and every warning")
    command.set_defaults(run=_bits)
    _add_allocate(commands)
    return run(parser, argv)


def _add_allocate(commands) -> None:
    command = commands.add_parser(
        "allocate",
        help="bits for each layer of a network, or row of a last layer, that lose least under a budget",
        description="The width of each weight of a network that loses least, from the noise of its logits, or of each row of a "
        "last layer, from its statistics or features, under a budget of stored bits per weight; or the fewest such bits that "
        "keep a loss.",
    )
    command.add_argument(
        "noise", metavar="file", help="a noise file (from `simulate linearize`), statistics or features (.npz)"
    )
    command.add_argument("--scheme", required=True, metavar="S", help=f"one of {', '.join(UNIFORM)}")
    command.add_argument(
        "--budget", type=positive, metavar="RATE", help="stored bits per weight, all side information included"
    )
    command.add_argument(
        "--max-loss", type=fraction, metavar="LOSS", help="in its place: the mean loss that is allowed, a fraction"
    )
    command.add_argument(
        "--bits", nargs="+", type=whole_number(1), metavar="B", help="widths tried for each weight (default 2 to 8)"
    )
    command.add_argument("--per-channel", action="store_true", help="one step per output channel instead of one per tensor")
    command.add_argument("--temperature", type=positive, metavar="T", help="of the posteriors (default: fitted to the labels)")
    command.add_argument("--confidence", type=fraction, default=0.95, help="of the interval (default 0.95)")
    command.add_argument("--test-size", type=whole_number(1), metavar="N", help="the interval for a test set of N samples")
    command.add_argument("--out", metavar="PLAN.json", help="where the plan goes")
    add_seed(command)
    add_json(command)

    def work(a: argparse.Namespace) -> None:
        from theory.choose.allocation import allocate

        names = ("scheme", "budget", "max_loss", "temperature", "confidence", "test_size", "seed", "out")
        options: dict[str, Any] = {"per_channel": True} if a.per_channel else {}
        options |= {"bits": a.bits} if a.bits else {}
        found = allocate(a.noise, **{name: getattr(a, name) for name in names}, **options)
        if a.json:
            records = {name: found[name] and found[name].as_dict() for name in ("record", "uniform")}
            print_json(found | records)
            return
        print(found["sentence"])
        tensors = found["plan"]["tensors"]
        print_table([{"weight": name, "bits": own["bits"]} for name, own in tensors.items()], ["weight", "bits"])
        for warning in found["record"].warnings:
            print(warning)

    command.set_defaults(run=work)


def _methods() -> str:
    from theory.methods import METHODS

    lines = [f"  {method.name} ({', '.join(method.errors)}): {method.summary}" for method in METHODS.values()]
    return "methods:\n" + "\n".join(lines) + "\n"


def _add_law(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--errors",
        choices=("actual", "expected", "adapted"),
        help="the compressed weights themselves, the mean over uniform errors, or over errors with the gain and variance of "
        "this layer's own (default actual; of a noise file expected)",
    )
    command.add_argument(
        "--test-size",
        type=whole_number(1),
        metavar="N",
        help="the interval for a test set of N samples (default: infinitely many)",
    )
    command.add_argument(
        "--temperature",
        type=positive,
        metavar="T",
        help="of the posteriors softmax(logits/T) of a features file, with actual errors (default: fitted to its labels)",
    )
    add_row_errors(command)


def _law_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`_add_law` and the seed read, by keyword."""
    return {name: getattr(arguments, name) for name in ("errors", "test_size", "temperature", "row_errors", "seed")}


def _predict(arguments: argparse.Namespace) -> None:
    from theory.prediction import predict

    records = predict(
        arguments.statistics,
        method=arguments.method,
        **_law_of(arguments),
        **question_of(arguments),
        **network_of(arguments),
    )
    show(records, as_json=arguments.json)


def _bits(arguments: argparse.Namespace) -> int:
    from theory.choose.width import bits

    found = bits(
        arguments.statistics,
        max_loss=arguments.max_loss,
        **_law_of(arguments),
        **question_of(arguments),
    )
    if arguments.json:
        plain = {name: found[name] for name in ("max_loss", "confidence", "upper_bounds", "sentence")}
        one = {name: found[name] and found[name].as_dict() for name in ("chosen", "closest")}
        print_json({**one, "records": [record.as_dict() for record in found["records"]], **plain})
        return 0 if found["chosen"] else 3
    print(found["sentence"])
    if arguments.verbose:
        show(found["records"], as_json=False)
    else:
        for warning in (found["chosen"] or found["closest"]).warnings:
            print(warning)
    return 0 if found["chosen"] else 3


if __name__ == "__main__":
    sys.exit(main())
