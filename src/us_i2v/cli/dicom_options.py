"""Options about DICOM that commands share, and what `generate` needs to read and write it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from us_i2v import __version__
from us_i2v.errors import ConfigError

if TYPE_CHECKING:
    from us_i2v.data.dicom.detect import Regions
    from us_i2v.data.dicom.output import DicomOutput
    from us_i2v.pipeline import GeneratedClip
    from us_i2v.types import Image

Region = Annotated[
    str,
    typer.Option("--region", help="Of DICOM stills, what lies outside of the ultrasound regions: keep, crop or blank."),
]
CleanRegion = Annotated[
    str, typer.Option("--region", help="What lies outside of the ultrasound regions: blank, crop or keep.")
]
Mark = Annotated[bool, typer.Option("--mark/--no-mark", help="Draw SYNTHETIC into DICOM clips; not for training sets.")]
KeepText = Annotated[
    bool, typer.Option("--keep-text", help="Make DICOM clips of stills with burned-in text, which may name a patient.")
]
ENDING = "dcm"


def parse_region(text: str) -> Regions:
    """Check the value of `--region`."""
    from us_i2v.data.dicom.detect import REGIONS

    for name in REGIONS:
        if text == name:
            return name
    raise typer.BadParameter(f"'{text}' is none of {', '.join(REGIONS)}.", param_hint="'--region'")


def is_dicom_output(path: Path) -> bool:
    """Tell whether a clip is to be written as a DICOM object."""
    return path.suffix.lower() == f".{ENDING}"


def read_region(path: Path, regions: Regions) -> Image:
    """Read a still, cropped or blanked to its regions if so wished.

    Raises:
        ConfigError: It is to be cropped or blanked and is no DICOM file.
        InputError: It cannot be read.
    """
    from us_i2v.data.dicom.detect import is_dicom
    from us_i2v.data.stills import read_still

    if regions != "keep" and not is_dicom(path):
        raise ConfigError(
            f"Still '{path}' is no DICOM file and states no regions to {regions} it to.", "Leave --region out."
        )
    return read_still(path, regions=regions)


def dicom_output(
    output: Path,
    image: Path,
    still: Image,
    clip: GeneratedClip,
    regions: Regions,
    mark: bool,
    keep_text: bool,
    made: str,
) -> DicomOutput | None:
    """Say how a clip becomes a DICOM object; None if it does not.

    Args:
        output: Where it is written.
        image: The still's file, whose spacing is taken over.
        still: As it was read; the clip may have another size.
        clip: What is to be written.
        regions: How the still was read.
        mark: Draw SYNTHETIC into the frames.
        keep_text: Accept burned-in text.
        made: How the clip was made.
    """
    from us_i2v.data.dicom.detect import is_dicom
    from us_i2v.data.dicom.output import DicomOutput

    if not is_dicom_output(output):
        return None
    made = f"Clip generated from one still by us-i2v {__version__}: {made}"
    lossy, spacing = image.suffix.lower() in (".jpg", ".jpeg"), None
    if is_dicom(image):
        from us_i2v.data.dicom.source import read_dicom_still

        read = read_dicom_still(image, regions=regions)
        lossy = read.lossy
        if read.mm_per_pixel is not None:
            rows, columns = (still.shape[axis] / clip.frames.shape[axis + 1] for axis in (0, 1))
            spacing = (read.mm_per_pixel[0] * rows, read.mm_per_pixel[1] * columns)
    return DicomOutput(mark=mark, keep_text=keep_text, mm_per_pixel=spacing, lossy=lossy, description=made)


def clip_name(stem: str, ending: str) -> str:
    """Return a clip's file name, see `outputs.clip_name`; a DICOM object's ends in .dcm."""
    from us_i2v.augmentation.outputs import clip_name as other_name

    return f"{stem}.{ENDING}" if ending == ENDING else other_name(stem, ending)
