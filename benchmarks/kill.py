"""`us-i2v augment` killed by kill -9 all over a run and continued, against a run that is left alone.

python benchmarks/kill.py [--stills 60] [--kills 20] [--ext mp4] [--weights FILE] [--seed 0]

Kills are spread over the whole run: their moments are drawn uniformly between its first clip and its manifest, and each
run goes on until the next one; every fourth comes earlier, at any moment of the start. Stills are random textures with
masks; weights are untrained ones unless given. Exit code 1 unless both folders agree byte for byte.
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
        begun, first = time.monotonic(), 0.0
        process = subprocess.Popen([*line, str(folder / "whole")], cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(0.005)
            if not first and clips(folder / "whole", given.ext):
                first = time.monotonic() - begun
        whole = time.monotonic() - begun
        if process.returncode:
            return process.returncode
        each = (whole - first) / max(1, given.stills - 1)
        print(f"undisturbed: {given.stills} clips in {whole:.0f} s, the first after {first:.0f} s", flush=True)
        out, expected, halves, places = folder / "killed", tree(folder / "whole"), 0, []
        for number, moment in enumerate(sorted(rng.uniform(0, given.stills + 1) for _ in range(given.kills))):
            process = subprocess.Popen(
                [*line, str(out)], cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            if number % 4 == 3:
                time.sleep(rng.random() * first)
            else:
                while process.poll() is None and clips(out, given.ext) < min(int(moment), given.stills):
                    time.sleep(0.001)
                time.sleep((moment - int(moment)) * each)
            finished = process.poll() is not None
            if not finished:
                os.killpg(process.pid, signal.SIGKILL)
                places.append(clips(out, given.ext) / given.stills)
            process.communicate()
            left = {file: data for file, data in tree(out).items() if not file.startswith(".")}
            halves += any(expected.get(file) != data for file, data in left.items())
            note = "had ended already" if finished else "killed"
            print(f"{number + 1}: {note} with {clips(out, given.ext)} clips there", flush=True)
        subprocess.run([*line, str(out)], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        same = tree(out) == expected and not [path for path in out.rglob("*") if path.name.startswith(".")]
        fifths = [sum(int(min(4, 5 * place)) == fifth for place in places) for fifth in range(5)]
        print(f"{len(places)} kills, by fifths of the clips: {fifths}; {halves} with files that differ")
        print(f"folders {'agree' if same else 'DIFFER'}")
        return int(not same or halves > 0)


if __name__ == "__main__":
    sys.exit(main())
