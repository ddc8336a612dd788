"""Run benchmarks by name, all by default, and write results.json and docs/benchmarks.md."""

import argparse
import importlib
import subprocess
import sys

from benchmarks import BENCHMARKS
from benchmarks.rows import write_results


def main() -> None:
    """Measure one after the other; each result is kept as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    if len(names) > 1:  # each in a Python of its own: threads of one are not those of another
        for name in names:
            subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)
        return
    for name in names:
        rows = importlib.import_module(f"benchmarks.{BENCHMARKS[name]}").measure()
        for row in rows:
            print(f"{row.name}: {row.ours:.4g} {row.unit}, reference {row.reference:.4g}", flush=True)
        write_results(rows)


if __name__ == "__main__":
    main()
