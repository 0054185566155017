"""`us-i2v verify`: is a clip synthetic, altered or unknown?

| exit code | |
|---|---|
| 0 | all clips are synthetic and as they were made |
| 2 | a path does not exist, or a folder holds no clips |
| 3 | at least one clip is altered |
| 4 | none is altered, at least one is unknown |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

ALTERED = 3
UNKNOWN = 4


def command(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Clips, or folders of clips.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a clip, records included.")] = False,
) -> None:
    """Say of clips whether they are synthetic, altered since they were made, or of unknown origin.

    Exit code 0: all synthetic; 3: some altered; 4: none altered, some unknown; 2: a path does not exist. The record is
    no signature: it can be removed or forged.
    """
    from us_i2v.data.verification import find_clips, verify

    found = [path for clip in clips for path in find_clips(clip)]
    seen = set()
    for path in found:
        verdict = verify(path)
        seen.add(verdict.status)
        record = verdict.record
        if as_json:
            about = None if record is None else record.model_dump(mode="json")
            values = {"path": str(path), "status": verdict.status, "reason": verdict.reason, "record": about}
            typer.echo(json.dumps(values))
            continue
        made = "" if record is None else f"; us-i2v {record.version} {record.command}, seed {record.seed}"
        typer.echo(f"{path}: {verdict.status} ({verdict.reason.rstrip('.')}{made})")
    if "altered" in seen:
        raise typer.Exit(ALTERED)
    if "unknown" in seen:
        raise typer.Exit(UNKNOWN)
