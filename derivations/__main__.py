"""``python -m derivations``: list every derived result and verify every step of its derivation."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence

if __name__ == "__main__":  # before the slow imports; simpler than in the other rooms: nothing half-written is to be removed
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"derivations: interrupted\n"), os._exit(130)))

from derivations.catalogue import RESULTS
from derivations.compiled import FILE
from derivations.jax_code import generate


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="derivations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(RESULTS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.add_argument(
        "--write", action="store_true", help="write the code generated from all results, which the other rooms call"
    )
    arguments = parser.parse_args(argv)
    if arguments.write:
        FILE.write_text(generate(RESULTS.values()))
        print(f"{FILE.name}: {len(json.loads(FILE.read_text()))} formulas")
        return 0
    unknown = [name for name in arguments.names if name not in RESULTS]
    if unknown:
        print(f"derivations: NAME: {unknown[0]!r} is not a result, expected one of {', '.join(RESULTS)}", file=sys.stderr)
        return 2
    records = []
    try:
        for name in arguments.names or RESULTS:
            record = RESULTS[name].record()
            records.append(record)
            if not arguments.json:
                _print(record)
        if arguments.json:
            print(json.dumps(records, indent=1), flush=True)
    except KeyboardInterrupt:
        print("derivations: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"derivations: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has no place to go
        return 2
    failed = [record["name"] for record in records if not record["verified"]]
    if failed:
        print(f"derivations: not verified: {', '.join(failed)}", file=sys.stderr)
        return 1
    if not arguments.json:
        print(f"{len(records)} results, {sum(len(record['steps']) for record in records)} steps, all verified")
    return 0


def _print(record: dict) -> None:
    print(f"{record['name']}  [{record['kind']}]")
    print(f"    {record['statement']}")
    print(f"    assumes: {'; '.join(record['assumptions'])}")
    print(f"    source: {record['source']}")
    for text in record["steps"]:
        print(f"    {'FAILS ' if text in record['failures'] else 'holds '} {text}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
