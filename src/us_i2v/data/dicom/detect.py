"""Which files are DICOM, without pydicom; which of those are clips, and of which patient, with it.

`.dcm` and `.dicom` are taken by their ending. Scanners and archives also write names without one, or with digits only
(`IM_0001`, `1.2.840.10008.5`): such a file is DICOM if "DICM" follows its first 128 bytes (PS3.10 7.1).
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from us_i2v.errors import InputError

if TYPE_CHECKING:
    from us_i2v.data.dicom.files import Stated

Regions = Literal["keep", "crop", "blank"]
"""What to do with the picture outside of its ultrasound regions."""

REGIONS: tuple[Regions, ...] = get_args(Regions)
SUFFIXES = frozenset({".dcm", ".dicom"})
_PREAMBLE = 128
_DIRECTORY = "DICOMDIR"


def is_dicom(path: Path) -> bool:
    """Tell whether a path is meant to be a DICOM file; opens only files without a telling ending."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return not path.is_dir()
    if (suffix and not suffix[1:].isdigit()) or path.name.upper() == _DIRECTORY or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def require_pydicom(path: Path | None = None) -> None:
    """Raise `InputError` unless pydicom can be imported."""
    if importlib.util.find_spec("pydicom") is None:
        what = "DICOM files need" if path is None else f"'{path}' is a DICOM file, which needs"
        raise InputError(f"{what} the extra 'dicom'.", "Install it: pip install 'us-i2v[dicom]'.")


def has_several_frames(path: Path) -> bool:
    """Tell whether a DICOM file states more than one frame; False where its header cannot be read.

    Raises:
        InputError: pydicom is missing.
    """
    require_pydicom(path)
    found = _stated(path)
    return found is not None and found.frames > 1


def patient_of(path: Path) -> str:
    """Return the group of a DICOM file's patient, see `identity.patient_group`; "" for other files.

    Raises:
        InputError: pydicom is missing.
    """
    if not is_dicom(path):
        return ""
    require_pydicom(path)
    found = _stated(path)
    return "" if found is None else found.patient


def _stated(path: Path) -> Stated | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return _read_once(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _read_once(path: str, changed: int, size: int) -> Stated:
    """Return what a header states; `changed` and `size` make the key."""
    from us_i2v.data.dicom.files import stated

    return stated(Path(path))
