"""What can be chosen for a generated DICOM clip, and the refusal of stills with burned-in text; needs no pydicom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from us_i2v.errors import InputError

if TYPE_CHECKING:
    from us_i2v.provenance import Provenance
    from us_i2v.types import Image


@dataclass(frozen=True)
class DicomOutput:
    """How a generated clip becomes a DICOM object.

    Attributes:
        mark: Draw SYNTHETIC into every frame.
        keep_text: Accept frames with burned-in text, which may identify a patient.
        mm_per_pixel: (row, column) spacing of the clip, if the still's was known.
        lossy: The still had been compressed with loss; the object then says so.
        description: How the clip was made, for Derivation Description (0008,2111).
        record: The same in full, for a private element; see `data.embedding`.
    """

    mark: bool = True
    keep_text: bool = False
    mm_per_pixel: tuple[float, float] | None = None
    lossy: bool = False
    description: str = ""
    record: Provenance | None = None


def refuse_text(picture: Image, name: str) -> None:
    """Raise `InputError` if text is found in a picture, (H, W) or (H, W, 3), that is to go into a DICOM object."""
    from us_i2v.data.audit.text import find_burned_in

    lines = find_burned_in(picture).lines
    if lines:
        where = f"the first at row {lines[0].top}, column {lines[0].left}"
        raise InputError(
            f"'{name}' has {len(lines)} lines of burned-in text ({where}), which may name a patient; "
            "DICOM output takes stills without.",
            "Cut the ultrasound picture out (--region crop for DICOM stills), or add --keep-text.",
        )
