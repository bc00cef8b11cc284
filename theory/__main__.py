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
    add_network,
    add_question,
    add_row_errors,
    add_seed,
    network_of,
    positive,
    print_json,
    question_of,
    run,
    show,
    whole_number,
)


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
    return run(parser, argv)


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
