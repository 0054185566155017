"""What a generated clip says about itself.

A `Provenance` is written into the container (`data.embedding` says where) and, with the file's own hash, into a JSON
file beside it. Both are plain statements, not signatures: who wants to can remove or forge them. There is no clock time
in them unless one is asked for, so that the same still, seed and settings give the same bytes.

Content hashes
    packets     SHA-256 of the coded packets of a video stream, in order: no decoding, hence no decoder, is involved
    frames      SHA-256 over all frames in order, each as its shape, "H,W;" or "H,W,3;", and its uint8 values in C
                order; a frame whose three channels agree counts as gray
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

SOFTWARE: Literal["us-i2v"] = "us-i2v"
MARKER = "provenance="
"""Comes before the record where it stands in a line of text."""
SIDECAR_SUFFIX = ".json"
MAX_TEXT = 1 << 16
"""Longest record that is read, characters."""

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Value = bool | int | float | str | None


class Provenance(Config):
    """How a clip, or the mask carried along with it, was made. All of it follows from the inputs but `stamp`."""

    format_version: Literal[1] = Field(1, description="Layout of this record.")
    synthetic: Literal[True] = Field(True, description="Always true.")
    software: Literal["us-i2v"] = Field(SOFTWARE, description="What made it.")
    version: str = Field(__version__, max_length=64, description="Version of the software.")
    command: Literal["generate", "augment", "transfer"] = Field(description="Which command made it.")
    part: Literal["clip", "mask"] = Field("clip", description="Whether this is the clip or its mask.")
    still_sha256: Hash | None = Field(description="SHA-256 of the still's file.")
    driver_sha256: Hash | None = Field(None, description="SHA-256 of the clip that drove it.")
    latent_sha256: Hash | None = Field(None, description="SHA-256 of the latent file that drove it.")
    weights_kind: str = Field("", max_length=64, description="Kind of the weights.")
    weights_sha256: str = Field(max_length=64, description="SHA-256 of the weights file.")
    seed: int | str = Field(description="Seed, or between which seeds.")
    sampler: str | None = Field(None, max_length=64, description="Sampler; empty: nothing was sampled step by step.")
    steps: int | None = Field(None, ge=1, description="Its steps.")
    options: dict[str, Value] = Field(default_factory=dict, description="All options of the generation.")
    fps: float = Field(0.0, ge=0, description="Frames a second.")
    content: Literal["packets", "frames"] | None = Field(None, description="What was hashed, see above.")
    content_sha256: Hash | None = Field(None, description="Its SHA-256.")
    stamp: str | None = Field(None, max_length=32, description="UTC time, if it was asked for.")

    later: ClassVar[tuple[str, ...]] = ("driver_sha256", "latent_sha256", "stamp")

    def of_content(self, kind: Literal["packets", "frames"], sha256: str, fps: float) -> Provenance:
        """Return the record of a clip with this content."""
        return self.model_copy(update={"content": kind, "content_sha256": sha256, "fps": fps})

    def line(self) -> str:
        """Return the record as one line of ASCII JSON."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":"), sort_keys=True)


class DamagedRecordError(InputError):
    """A record is there and cannot be read.

    Attributes:
        record: The same record from another place in the clip, if there is one.
    """

    def __init__(self, source: str, error: Exception, record: Provenance | None = None) -> None:
        reason = " ".join(str(error).split())[:120].rstrip(".")
        super().__init__(f"The record of '{source}' is damaged ({reason}).", "Nothing can be said about its origin.")
        self.record = record


class Sidecar(Config):
    """The JSON file beside a clip: its record and the hashes of the finished files."""

    record: Provenance
    file: str = Field(description="Name of the clip.")
    file_sha256: Hash = Field(description="SHA-256 of the clip's file.")
    mask: str | None = Field(None, description="Name of its mask.")
    mask_sha256: Hash | None = Field(None, description="SHA-256 of the mask's file; of a folder its frames' hash.")

    later: ClassVar[tuple[str, ...]] = ("mask", "mask_sha256")


def sidecar_path(clip: Path) -> Path:
    """Return where the JSON file of a clip lies; a folder of frames has its record in its own clip.json."""
    return clip.with_name(clip.name + SIDECAR_SUFFIX)


def parse_line(text: str, source: str) -> Provenance | None:
    """Return the record in a text, None if there is none; raises `DamagedRecordError`."""
    _, marker, record = text.partition(MARKER)
    if not marker:
        return None
    return parse_record(record, source)


def parse_record(text: str, source: str) -> Provenance:
    """Return the record that a text is; raises `DamagedRecordError`."""
    try:
        return Provenance.parse(_mapping(text, source), source)
    except ConfigError as error:
        raise DamagedRecordError(source, error) from error


def read_sidecar(path: Path) -> Sidecar:
    """Read the JSON file beside a clip; raises `DamagedRecordError`."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TEXT + 1).decode("utf-8")
        return Sidecar.parse(_mapping(text, str(path)), str(path))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise DamagedRecordError(str(path), error) from error


def _mapping(text: str, source: str) -> dict[str, object]:
    if len(text) > MAX_TEXT:
        raise DamagedRecordError(source, ValueError(f"it is longer than {MAX_TEXT} characters"))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedRecordError(source, error) from error
    if not isinstance(values, dict):
        raise DamagedRecordError(source, ValueError("it is no table"))
    return values
