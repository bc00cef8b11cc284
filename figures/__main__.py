"""``python -m figures``: every theory-against-simulation figure and the table that checks them."""

import sys
from collections.abc import Sequence

from theory.setting.door import Parser, add_json, add_seed, print_json, print_table, run


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="figures", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="distortion, failure_map, spread, actual_errors, quantization_errors, many_classes, slopes, real_pairs, "
        "real_classes, real_margins, real_hypotheses, real_models, rate_distortion, choices, power (default: all)",
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
