"""Run folders and the data that goes into a run: shared by all stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from us_i2v.config import Config, flatten, read_mapping
from us_i2v.data.atomic import write_bytes
from us_i2v.data.datasets import find_samples
from us_i2v.data.training_clips import (
    FLOW_STRIDE,
    ClipsConfig,
    StoredClip,
    Window,
    split_clips,
    store_clips,
)
from us_i2v.errors import ConfigError, DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from us_i2v.training.report import Reporter


def start_run(out: Path, config: Config, *, resume: bool) -> None:
    """Create a run folder with its resolved config, or check that a resumed one has the same.

    Raises:
        ConfigError: A resumed run's settings differ; names the first differing key.
        OutputError: The folder cannot be written.
    """
    path = out / "config.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "samples").mkdir(exist_ok=True)
        if resume and path.exists():
            old, new = flatten(read_mapping(path)), flatten(config.model_dump(mode="json"))
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key):
                    raise ConfigError(
                        f"'{out}' was started with other settings: '{key}' differs.",
                        f"Use the settings in '{path}', or another folder.",
                    )
            return
        if (out / "checkpoint.safetensors").exists():
            raise OutputError(f"'{out}' already holds a run.", "Use --resume to go on, or another folder.")
        write_bytes(path, config.dump().encode())
    except OSError as error:
        raise OutputError(f"Cannot write run folder '{out}': {error.strerror}.", "Choose another folder.") from error


def gather_clips(
    data: Sequence[Path], cache: Path, size: int, config: ClipsConfig, seed: int, reporter: Reporter
) -> tuple[list[StoredClip], list[StoredClip]]:
    """Find, cache and split the clips of some data folders: (training, validation); test clips are not opened.

    Raises:
        DataError: No clips.
    """
    samples = [(folder.name, sample) for folder in data for sample in find_samples(folder)]
    clips = [(source, sample) for source, sample in samples if sample.kind == "clip"]
    if not clips:
        names = ", ".join(str(folder) for folder in data)
        raise DataError(f"No clips found in {names} ({len(samples)} stills).", "Training needs video clips.")
    reporter.message(f"{len(clips)} clips: decoding what is not in the cache yet")
    clips = [(source, sample) for source, sample in clips if sample.split != "test"]
    stored = store_clips(clips, cache, size, config)
    train, held = split_clips(stored, [sample.split for _, sample in clips], config, seed)
    reporter.message(
        f"training: {len(train)} clips of {len({c.group for c in train})} groups; "
        f"held out: {len(held)} of {len({c.group for c in held})}"
    )
    return train, held


def stack_windows(windows: Sequence[Window], size: int) -> dict[str, Tensor]:
    """Stack windows: video (B, 1, T, S, S), flow (B, 2, T, S/4, S/4), NaN where unknown, interval (B,)."""
    cells = size // FLOW_STRIDE
    flows = [
        np.full((2, len(w.frames), cells, cells), np.nan, np.float32) if w.flow is None else w.flow.swapaxes(0, 1)
        for w in windows
    ]
    return {
        "video": torch.from_numpy(np.stack([w.frames for w in windows]))[:, None],
        "flow": torch.from_numpy(np.stack(flows)),
        "interval": torch.tensor([w.interval for w in windows], dtype=torch.float32),
    }
