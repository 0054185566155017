"""What was asked for, kept as `settings.json` in the output folder.

A later run in the same folder continues only if it asks for the same; otherwise clips of different kinds
would lie side by side under one manifest. Which shard runs is no setting, nor is the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from us_i2v import __version__
from us_i2v.augmentation.outputs import check_folder_writable, write_text
from us_i2v.augmentation.selection import QualitySelection
from us_i2v.config import Config, flatten, read_mapping
from us_i2v.data.dicom.detect import Regions
from us_i2v.errors import ConfigError, OutputError
from us_i2v.pipeline import GenerateOptions, Precision

SETTINGS_NAME = "settings.json"


class AugmentSettings(Config):
    """All that the bytes of an augmented data set depend on, except the stills themselves."""

    format_version: int = Field(default=1, ge=1, le=1, description="Layout of this file.")
    version: str = Field(default=__version__, description="Version of us-i2v that makes the clips.")
    clips_per_image: int = Field(default=1, ge=1, le=10_000, description="Clips a still, before balancing.")
    balance: bool = Field(default=False, description="Give rarer classes more clips a still.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Base seed.")
    ending: str = Field(default="mp4", description="Format of the clips.")
    exact: bool = Field(default=False, description="Write video without loss.")
    size: int | None = Field(default=None, ge=16, description="Output size in pixels; None: the still's own.")
    region: Regions = Field(default="keep", description="Of DICOM stills, what lies outside of their regions.")
    precision: Precision = Field(default="fp32", description="What networks compute in: fp32 or bf16.")
    own_label: bool = Field(default=False, description="Condition each clip on its still's class, where known.")
    options: GenerateOptions = Field(default=GenerateOptions(), description="How clips are generated.")
    weights_sha256: str = Field(default="", description="Hash of the weights file.")
    sources_sha256: str = Field(default="", description="Hash of all stills, masks, labels and groups.")

    license: str = Field(default="", max_length=200, description="Licence of the clips, for their card.")
    source: str = Field(default="", max_length=500, description="Where the stills come from, for the card.")

    quality: QualitySelection | None = Field(default=None, description="Which clips stay; None: all.")

    later: ClassVar[tuple[str, ...]] = ("region", "precision", "own_label", "license", "source", "quality")

    def sha256(self) -> str:
        """Return the hash of the settings file's text."""
        return hashlib.sha256(self.dump().encode()).hexdigest()


def check_own_label(labels: Sequence[str], label: str | None) -> None:
    """Raise `ConfigError` if stills cannot be conditioned on their own classes.

    Args:
        labels: Classes that the weights know.
        label: Class that is asked for all stills.
    """
    if label is not None:
        raise ConfigError(f"Both one label ('{label}') and each still's own were asked for.", "Drop one of them.")
    if not labels:
        raise ConfigError("Each still's own label was asked for; these weights know no classes.", "Drop --own-label.")


def check_settings(out: Path, settings: AugmentSettings) -> None:
    """Check that `out` is new, empty, or was made with the same settings; writes nothing.

    Raises:
        ConfigError: the folder holds clips made with other settings; names the first key that differs.
        OutputError: the folder cannot be written to, or holds other things.
    """
    path = out / SETTINGS_NAME
    if path.exists():
        before = flatten(read_mapping(path))
        now = flatten(settings.model_dump(mode="json"))
        for key in [*now, *(key for key in before if key not in now)]:
            if before.get(key) != now.get(key):
                raise ConfigError(
                    f"Output folder '{out}' was made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}.",
                    "Use the same data and settings to continue, or another output folder.",
                )
    elif out.is_dir():
        others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
        if others:
            raise OutputError(
                f"Output folder '{out}' holds '{others[0]}' but no {SETTINGS_NAME} of an earlier run.",
                "Choose a new or empty folder.",
            )
    check_folder_writable(out)


def pin_settings(out: Path, settings: AugmentSettings, staging: Path) -> None:
    """Write the settings if there are none, then check them: another shard may have been first."""
    path = out / SETTINGS_NAME
    if not path.exists():
        write_text(path, settings.dump(), staging)
    check_settings(out, settings)
