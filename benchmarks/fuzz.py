"""Ten thousand damaged files over all readers: findings, hangs, peak memory.

python benchmarks/fuzz.py [--inputs 10000] [--seed 0] [--processes 2]

Each process takes its share in pieces of 500, so that memory is measured afresh. Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIECE = 500
MOST_MB = 1000


def piece(count: int, seed: int) -> dict:
    """Run one piece in a process of its own; a crash of the process is a finding."""
    line = [sys.executable, "-m", "tests.fuzz.engine", str(count), str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        problem = f"exit status {done.returncode}: {done.stderr[-2000:]}"
        return {"findings": [{"subject": "?", "number": seed, "problem": problem}], "tried_and_refused": {}}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    begun = time.monotonic()
    counts = [min(PIECE, given.inputs - first) for first in range(0, given.inputs, PIECE)]
    with ThreadPoolExecutor(given.processes) as pool:
        reports = list(pool.map(piece, counts, range(given.seed * 100_000, given.seed * 100_000 + len(counts))))
    tried, refused = Counter(), Counter()
    for report in reports:
        for name, (total, no) in report["tried_and_refused"].items():
            tried[name] += total
            refused[name] += no
    findings = [finding for report in reports for finding in report["findings"]]
    peak = max(max(report.get("peak_mb", 0), report.get("peak_mb_of_programs", 0)) for report in reports)
    for name in sorted(tried):
        print(f"{name:24} {tried[name]:6} tried {refused[name]:6} refused")
    for finding in findings:
        print(f"{finding['subject']} {finding['number']}: {finding['problem'][-1500:]}")
    slowest = max(tuple(report.get("slowest_s", (0, ""))) for report in reports)
    print(f"{sum(tried.values())} inputs, {sum(refused.values())} refused, {len(findings)} findings, peak {peak} MB, ")
    print(f"slowest {slowest[0]} s ({slowest[1]}), {time.monotonic() - begun:.0f} s in all")
    return int(bool(findings) or peak > MOST_MB or sum(tried.values()) != given.inputs)


if __name__ == "__main__":
    sys.exit(main())
