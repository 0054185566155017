"""Which metrics are asked for, and which of their networks are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from us_i2v.errors import ConfigError
from us_i2v.metrics.extractors import EXTRACTORS, Extractor, load_extractor
from us_i2v.metrics.lpips import LPIPS
from us_i2v.metrics.pretrained import PRETRAINED, find_metric_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

OTHERS = ("lpips", "paired", "motion", "decorrelation")
"""Metrics that are no feature networks: LPIPS, the plain paired numbers, motion and texture, decorrelation."""


@dataclass(frozen=True)
class Wanted:
    """What is measured.

    Attributes:
        networks: Feature networks by key.
        lpips: Network of LPIPS, or None.
        paired: Differences from real partners.
        motion: Motion and texture of each clip.
        decorrelation: Correlation of the speckle with frame 0's.
    """

    networks: dict[str, Extractor]
    lpips: LPIPS | None
    paired: bool
    motion: bool
    decorrelation: bool


def choose(
    names: Sequence[str], folder: Path | None, backbone: str, length: int, device: torch.device
) -> tuple[Wanted, list[str]]:
    """Load the networks that are wanted and there; return them and what is left out, with the remedy.

    Args:
        names: Keys of `EXTRACTORS` and of `OTHERS`; none takes all.
        folder: Where metric weights are looked for first.
        backbone: Network of LPIPS.
        length: Frames a clip.
        device: Where networks run.

    Raises:
        ConfigError: A name is unknown.
        WeightsError: Weights are there, but not the known ones.
    """
    known = (*EXTRACTORS, *OTHERS)
    names = list(names) or list(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"Metric '{name}' is unknown.", f"Use some of {','.join(known)}.")
    if f"lpips-{backbone}" not in PRETRAINED:
        raise ConfigError(f"LPIPS network '{backbone}' is unknown.", "Use alex, squeeze or vgg.")
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--metric-weights '{folder}' is no folder.", "Give the folder that holds the files.")
    left_out: list[str] = []
    networks: dict[str, Extractor] = {}
    for key in [name for name in names if name in EXTRACTORS]:
        files = EXTRACTORS[key].weights
        if all(find_metric_weights(file, folder) is None for file in files):
            left_out.append(missing(key, files))
            continue
        extractor = load_extractor(key, folder, device=device)
        if extractor.least_frames > length:
            left_out.append(f"{key}: clips of {extractor.least_frames} frames are needed, --length is {length}")
            continue
        networks[key] = extractor
    network = None
    if "lpips" in names:
        path = find_metric_weights(f"lpips-{backbone}", folder)
        if path is None:
            left_out.append(missing("lpips", (f"lpips-{backbone}",)))
        else:
            network = LPIPS.load(backbone, path).to(device)  # type: ignore[arg-type]
    paired = network is not None or "paired" in names
    return Wanted(networks, network, paired, "motion" in names, "decorrelation" in names), left_out


def missing(key: str, files: tuple[str, ...]) -> str:
    """Say which file a metric lacks and how to get it."""
    found = " or ".join(PRETRAINED[name].file for name in files)
    return (
        f"{key}: {found} is not there; make it with `us-i2v convert {files[0]} ...` (docs/metric-weights.md) and put "
        "it into --metric-weights FOLDER, $US_I2V_METRIC_WEIGHTS or the cache folder"
    )
