"""Removing identity from a data set: PS3.15 Annex E, basic profile, and a little more. Best effort, as all of it is.

Beyond the table (`profile`): private attributes go, and so does whatever pydicom's dictionary does not know; free text
(ST, LT, UT, UC), dates and times that the table does not name go; persons' names that it does not name become a dummy;
UIDs that it does not name, but for those of the standard itself, are replaced. A sequence that the table wants to be a
dummy becomes empty. Every other sequence is entered.

One patient keeps one pseudonym and one UID one substitute as long as the salt is the same: both derive from it and the
original by SHA-256. Who has the salt and guesses an original can confirm the guess; without one a random salt is drawn
and forgotten.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from us_i2v import __version__
from us_i2v.data.dicom.profile import basic_profile
from us_i2v.data.dicom.writing import UNKNOWN, content_uid, file_header

if TYPE_CHECKING:
    from pydicom import DataElement, FileDataset

_STANDARD = "1.2.840.10008."
"""UIDs under this root name classes and syntaxes, no instance."""
_PIXELS = 0x7FE00010
_FREE = ("ST", "LT", "UT", "UC", "DA", "TM", "DT", "UN")
"""Representations that go where the table does not name them."""
_DUMMIES: dict[str, Any] = {
    **{"DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "IS": "0", "DS": "0"},
    **{"US": 0, "SS": 0, "UL": 0, "SL": 0, "UV": 0, "SV": 0, "FL": 0.0, "FD": 0.0, "AT": 0},
    **{"OB": b"\0\0", "OW": b"\0\0", "UN": b"\0\0", "OF": b"\0" * 4, "OL": b"\0" * 4, "OD": b"\0" * 8, "OV": b"\0" * 8},
}
_WORD = "ANONYMOUS"
_PSEUDONYM = re.compile(r"ANON-[0-9A-F]{12}")


class Pseudonyms:
    """Substitutes that stay the same for one salt."""

    def __init__(self, salt: str) -> None:
        self._salt = salt

    def uid(self, original: str) -> str:
        """Return the substitute of a UID; those of the standard stay."""
        return original if original.startswith(_STANDARD) or not original else str(content_uid(self._salt, original))

    def patient(self, dataset: Dataset) -> str:
        """Return a patient's pseudonym: from the ID, else from name and birth date, else from the study."""
        identity = [str(dataset.get(key) or "") for key in ("PatientID", "IssuerOfPatientID")]
        if not identity[0].strip():
            identity = [str(dataset.get(key) or "") for key in ("PatientName", "PatientBirthDate")]
        if not "".join(identity).strip():
            identity = [str(dataset.get("StudyInstanceUID") or dataset.get("SOPInstanceUID") or "")]
        digest = hashlib.sha256("\0".join([self._salt, "patient", *identity]).encode()).hexdigest()
        return f"ANON-{digest[:12].upper()}"


def patient_group(dataset: Dataset) -> str:
    """Return the same group for all files of a patient, on every machine; "" if nothing identifies the patient.

    It is the pseudonym without a salt, hence no secret: who guesses an original can confirm the guess. A pseudonym that
    `remove_identity` gave stays what it is, so that a cleaned folder has the groups that its manifest states.
    """
    own = str(dataset.get("PatientID") or "").strip()
    if _PSEUDONYM.fullmatch(own):
        return own
    known = ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")
    return Pseudonyms("").patient(dataset) if any(str(dataset.get(key) or "").strip() for key in known) else ""


def remove_identity(dataset: FileDataset, pseudonyms: Pseudonyms) -> str:
    """Remove identity from a whole file's data set in place, its file header included.

    Returns:
        The patient's pseudonym.
    """
    patient = pseudonyms.patient(dataset)
    _clean(dataset, pseudonyms)
    dataset.PatientName = patient
    dataset.PatientID = patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.DeidentificationMethod = f"us-i2v {__version__}: PS3.15 E basic profile, best effort"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = Sequence([code])
    for keyword in (*UNKNOWN, "StudyID"):
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    dataset.file_meta = file_header(dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.file_meta.TransferSyntaxUID)
    dataset.preamble = b"\0" * 128
    return patient


def _clean(dataset: Dataset, pseudonyms: Pseudonyms) -> None:
    profile = basic_profile()
    for tag in list(dataset.keys()):
        number = int(tag)
        action = profile.action(number)
        unknown = action is None and not dictionary_has_tag(tag) and number != _PIXELS
        if tag.is_private or unknown or action == "X":
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            if action in ("D", "Z"):
                element.value = Sequence([])
            else:
                for item in element.value:
                    _clean(item, pseudonyms)
        elif action is not None:
            _replace(element, action, pseudonyms)
        elif element.VR in _FREE:
            del dataset[tag]
        elif element.VR == "PN":
            element.value = _WORD
        elif element.VR == "UI":
            _replace(element, "U", pseudonyms)


def _replace(element: DataElement, action: str, pseudonyms: Pseudonyms) -> None:
    """Apply D, Z or U to an element that is no sequence."""
    if action == "Z":
        element.value = None
    elif action in ("U", "references") or element.VR == "UI":
        value = element.value
        several = [value] if isinstance(value, str) or value is None else list(value)
        substitutes = [pseudonyms.uid(str(each or "")) for each in several]
        element.value = substitutes[0] if len(substitutes) == 1 else substitutes
    else:
        element.value = _DUMMIES.get(element.VR, _WORD)
