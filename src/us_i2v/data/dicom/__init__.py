"""DICOM, in and out: what needs pydicom (the extra `dicom`) lives here; only `detect` works without it.

| module | owns |
|---|---|
| `detect` | is a file DICOM, has it several frames; the error where pydicom is missing |
| `files` | opening with limits, header, encoded frames |
| `pixels` | one encoded frame to uint8 gray or RGB |
| `regions` | calibrated regions (0018,6011): cropping, blanking, millimetres a pixel |
| `timing` | frames a second |
| `source` | the decoder behind `clips.open_clip` and `stills.read_still` |
| `mark`, `writing` | generated clips as Ultrasound Multi-frame Image Storage |
| `profile`, `identity`, `deidentify` | PS3.15 Annex E, basic profile, and burned-in text |
"""
