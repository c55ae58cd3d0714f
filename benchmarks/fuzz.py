"""Thousands of mutated bundles, images, tables, class lists and journals; each must work or be refused in a sentence.

    python benchmarks/fuzz.py [--each 300] [--first 0]

Memory is limited to 2 GiB above what the start takes, so that an input that would fill it shows as a failure.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from record import write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mutations import seeds, tried

ROOM = 2 << 30
"""Bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=300, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        targets = seeds(Path(folder) / "place")
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
        counts, failures = {}, []
        for target in targets:
            found = [tried(target, Path(folder) / "place", options.first + i) for i in range(options.each)]
            bad = list(filter(None, found))
            counts[target.name] = {"inputs": options.each, "failures": len(bad)}
            failures += bad
            print(f"{target.name:40} {options.each} inputs, {len(bad)} failures", *bad[:5], sep="\n   ", flush=True)
    write("fuzz", "mutated inputs", counts=counts, failures=failures)


if __name__ == "__main__":
    main()
