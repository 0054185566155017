"""Mutates whole files and lets their readers at them: anything but success or a `UsI2VError` is a finding.

python -m tests.fuzz.engine COUNT SEED [SUBJECT]   one process; prints a JSON report on its last line
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.subjects import Subject, safetensors_header, subjects
from us_i2v.errors import UsI2VError

SECONDS = 20
"""Longest time for one input; longer is a hang."""
INTERESTING = (0, 1, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NUMBERS = (
    *("0", "-1", "1", "3", "17", "65536", "99999999", "4294967296", "1e309", "-0.0", "NaN", "null", "[]", "{}", '"x"'),
    *("1" * 40, "1" * 5000, "true", "../../etc/passwd", "/etc/passwd", "\\u0000", "[" * 2000),
)


class HangError(BaseException):
    """An input took too long; not an `Exception`, so that no reader can swallow it."""


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return a damaged copy: bits, blocks, lengths, numbers in text, or a safetensors header."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.choice(("bits", "bytes", "integer", "cut", "drop", "repeat", "insert", "zeros", "number", "header"))
        # Most structure is at the beginning.
        top = len(data) if rng.random() < 0.5 else min(len(data), 400)
        place = rng.randrange(top) if top else 0
        length = rng.choice((1, 2, 4, 8, 16, 64, 256))
        if kind == "bits":
            for _ in range(rng.randint(1, 8)):
                if data:
                    data[rng.randrange(max(1, top))] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            data[place : place + length] = rng.randbytes(len(data[place : place + length]))
        elif kind == "integer":
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTERESTING) % (1 << 8 * width)
            data[place : place + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == "cut":
            del data[rng.randrange(len(data) + 1) :]
        elif kind == "drop":
            del data[place : place + length]
        elif kind == "repeat":
            data[place:place] = data[place : place + length] * rng.randint(1, 50)
        elif kind == "insert":
            data[place:place] = rng.randbytes(length)
        elif kind == "zeros":
            data[place : place + length] = bytes(len(data[place : place + length]))
        elif kind == "number":
            data = bytearray(_other_number(bytes(data), rng))
        else:
            data = bytearray(_other_header(bytes(data), rng))
    return bytes(data)


def _other_number(content: bytes, rng: random.Random) -> bytes:
    """Replace one number that is written as text."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", content[: 1 << 16]))
    if not found:
        return content
    chosen = rng.choice(found)
    return content[: chosen.start()] + rng.choice(NUMBERS).encode() + content[chosen.end() :]


def _other_header(content: bytes, rng: random.Random) -> bytes:
    """Change a number in a safetensors file's own JSON or in that of its metadata, and keep the file readable."""
    parts = safetensors_header(content)
    if parts is None:
        return content
    header, rest = parts
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and metadata and rng.random() < 0.7:
        key = rng.choice(sorted(metadata))
        metadata[key] = _other_number(str(metadata[key]).encode(), rng).decode()
        text = json.dumps(header).encode()
    else:
        text = _other_number(json.dumps(header).encode(), rng)
    return len(text).to_bytes(8, "little") + text + rest


def run(count: int, seed: int, only: str = "") -> dict[str, object]:
    """Try `count` mutated files; returns what happened."""
    rng = random.Random(seed)
    scratch = Path(tempfile.mkdtemp(prefix="us-i2v-fuzz-"))
    try:
        (scratch / "seeds").mkdir()
        chosen = [subject for subject in subjects(scratch / "seeds") if only in subject.name]
        for subject in chosen:
            _whole_file_is_read(subject, scratch / "whole")
        report = _attempts(chosen, count, rng, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return report | {"peak_mb": round(peak_mb()), "peak_mb_of_programs": round(programs)}


def peak_mb() -> float:
    """Peak memory of this program; ru_maxrss alone also counts what the program that started it had."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _whole_file_is_read(subject: Subject, folder: Path) -> None:
    path = _put(subject, subject.content, folder)
    subject.read(path)
    shutil.rmtree(folder)


def _attempts(chosen: list[Subject], count: int, rng: random.Random, scratch: Path) -> dict[str, object]:
    weights = [subject.weight for subject in chosen]
    tried: dict[str, list[int]] = {}
    findings: list[dict[str, object]] = []
    slowest = (0.0, "")
    for number in range(count):
        (subject,) = rng.choices(chosen, weights)
        content = mutate(subject.content, rng)
        folder = scratch / f"n{number}"
        path = _put(subject, content, folder)
        begun = time.monotonic()
        problem = _attempt(subject, path)
        slowest = max(slowest, (round(time.monotonic() - begun, 2), f"{subject.name} {number}"))
        counts = tried.setdefault(subject.name, [0, 0])
        counts[0] += 1
        counts[1] += problem == "refused"
        if problem not in ("", "refused"):
            findings.append({"subject": subject.name, "number": number, "problem": problem})
        shutil.rmtree(folder, ignore_errors=True)
    return {"inputs": count, "tried_and_refused": tried, "findings": findings, "slowest_s": slowest}


def _attempt(subject: Subject, path: Path) -> str:
    """Return "", "refused", or what went wrong."""
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        subject.read(path)
    except UsI2VError as error:
        return "refused" if len(str(error)) < 2000 else f"a message of {len(str(error))} characters"
    except HangError:
        return f"hang: more than {SECONDS} s"
    except Exception:
        return traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def _hang(*_given: object) -> None:
    raise HangError


def _put(subject: Subject, content: bytes, folder: Path) -> Path:
    for name, data in {**subject.neighbours, subject.name: content}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / subject.name


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])))
