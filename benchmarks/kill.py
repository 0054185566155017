"""`us-i2v augment` killed by kill -9 at random moments and continued, against a run that is left alone.

python benchmarks/kill.py [--stills 60] [--kills 20] [--ext mp4] [--weights FILE] [--seed 0]

Stills are random textures with masks; weights are untrained ones unless given. Exit code 1 unless both folders agree
byte for byte.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.factories import small_weights  # noqa: E402
from tests.fakes import tree, write_busi  # noqa: E402


def clips(out: Path, ending: str) -> int:
    """Count the finished clips; staging folders come and go meanwhile and are not looked into."""
    return sum(1 for label in ("benign", "malignant", "normal") for _ in (out / label).glob(f"*_0.{ending}"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stills", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ext", default="mp4")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="us-i2v-kill-") as name:
        folder = Path(name)
        share = given.stills // 3
        counts = {"benign": share, "malignant": share, "normal": given.stills - 2 * share}
        data = write_busi(folder / "stills", counts)
        weights = given.weights or small_weights(folder / "w.safetensors")
        line = [sys.executable, "-m", "us_i2v", "augment", str(data), "--weights", str(weights), "--ext", given.ext]
        line += ["--device", "cpu", "--steps", "1"]
        begun = time.monotonic()
        subprocess.run([*line, str(folder / "whole")], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        whole = time.monotonic() - begun
        print(f"undisturbed: {clips(folder / 'whole', given.ext)} clips in {whole:.0f} s", flush=True)
        out, expected, halves = folder / "killed", tree(folder / "whole"), 0
        for number in range(given.kills):
            # Half of the kills come at any moment from the start on, half while clips are being made.
            before, wanted = clips(out, given.ext), rng.choice((0, 1))
            process = subprocess.Popen(
                [*line, str(out)], cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            while process.poll() is None and clips(out, given.ext) < before + wanted:
                time.sleep(0.001)
            time.sleep(rng.random() * (0.2 if wanted else 4.0))
            finished = process.poll() is not None
            if not finished:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            left = {file: data for file, data in tree(out).items() if not file.startswith(".partial")}
            halves += any(expected.get(file) != data for file, data in left.items())
            note = "had ended already" if finished else "killed"
            print(f"{number + 1}: {note} with {clips(out, given.ext)} clips there", flush=True)
        subprocess.run([*line, str(out)], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        same = tree(out) == expected and not [path for path in out.rglob("*") if path.name.startswith(".")]
        print(f"{given.kills} kills, {halves} with files that differ: folders {'agree' if same else 'DIFFER'}")
        return int(not same or halves > 0)


if __name__ == "__main__":
    sys.exit(main())
