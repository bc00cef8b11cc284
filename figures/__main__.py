"""``python -m figures``: every theory-against-simulation figure and the table that checks them."""

import sys
from collections.abc import Sequence

from theory.setting import interrupt

if __name__ == "__main__":
    interrupt.install("figures")

from theory.setting.command_line import Parser, add_json, add_question, add_seed, print_json, print_table, question_of, run


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    return _mine(words[1:]) if words[:1] == ["mine"] else _all(words)


def _mine(argv: Sequence[str]) -> int:
    parser = Parser(
        prog="figures mine", description="Your own problem: theory with its interval beside simulation or counting."
    )
    parser.add_argument("file", help="a statistics or a labelled features file (.npz)")
    add_question(parser)
    parser.add_argument(
        "--errors", choices=("actual", "expected"), default="actual", help="of statistics: the layer at hand, or random errors"
    )
    parser.add_argument("--out", default="out", metavar="DIR", help="where mine.pdf, .png and .csv go (default out)")
    add_seed(parser)

    def work(a) -> None:
        from figures.my_problem import mine

        rows = mine(a.file, errors=a.errors, out=a.out, seed=a.seed, **question_of(a))
        if a.json:
            print_json(rows)
            return
        columns = ("quantity", "scheme", "bits", "method", "theory", "low", "high", "simulation", "standard_error", "z")
        print_table(rows, columns)
        print(f"{a.out}: mine.pdf, mine.png, mine.csv")

    parser.set_defaults(run=work)
    return run(parser, argv)


def _all(argv: Sequence[str]) -> int:
    parser = Parser(prog="figures", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="distortion, failure_map, spread, actual_errors, quantization_errors, many_classes, slopes, real_pairs, "
        "real_classes, real_margins, real_hypotheses, real_models, rate_distortion, choices, power, all_layers, activations, "
        "sensitivities, unlabelled, allocations, depth (default: all); or `mine FILE`: your own problem, with options of its "
        "own",
    )
    parser.add_argument("--out", default="out", metavar="DIR", help="where PDF, PNG and CSV go (default out)")
    add_seed(parser)
    add_json(parser)

    def work(a) -> None:
        from figures.compare import holding, shortened
        from figures.report import report

        comparison = report(a.names, out=a.out, seed=a.seed)
        if a.json:
            print_json(comparison)
            return
        table = shortened(comparison)
        if table:
            print_table(table, list(table[0]))
        held, exact = holding(comparison)
        if exact:
            print(
                f"{held} of {exact} exact claims hold (one Holm family at 0.1 %); comparison.csv has all {len(comparison)} rows"
            )

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
