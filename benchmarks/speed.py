"""Every speed that is promised, beside what it is promised against, in one run.

``python -m benchmarks.speed [--only networks volumes workers rivals] [--device cpu] [--output FILE.md]``
prints a table in Markdown. Run it on idle cores: the least of several turns is kept, but no turn is quick
beside other programs.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ratios import Ratio, table_of

_PARTS = ("networks", "volumes", "workers", "rivals")
"""Modules ``benchmarks.speed_PART``; each has ``rows(device, quick)``."""


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="small scans and single turns, to try it out")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows: list[Ratio] = []
    for part in options.only:
        for row in rows_of(part, options.device, options.quick):
            rows.append(row)
            print(table_of([row]).splitlines()[-1], flush=True)
    if not rows:
        return
    table = table_of(rows)
    print(f"\n{table}")
    if options.quick:
        print("\nQuick: networks and scans are too small for these ratios to say anything of the targets.")
    if options.output is not None:
        options.output.write_text(table + "\n")


def rows_of(part: str, device: str, quick: bool) -> Iterator[Ratio]:
    """Rows of one part, as they are measured."""
    module = importlib.import_module(f"benchmarks.speed_{part}")
    yield from module.rows(device, quick)


if __name__ == "__main__":
    main()
