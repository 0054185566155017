"""Where a clip's record stands in its container, and how it is read back; see `provenance`.

| container | place | content that is hashed |
|---|---|---|
| .mp4, .mkv, .avi | the tag `comment`: `us-i2v size=HxW provenance={...}` | coded packets |
| .gif | a comment block: `provenance={...}` | decoded frames |
| .npz | the array `provenance`, text | frames |
| folder of PNG frames | `provenance` in clip.json, and a text chunk `us-i2v` in every frame | frames |
| .dcm | a private element (0009,1001) of the block `US-I2V PROVENANCE` | frames |
| single PNG frame | the text chunk of its clip; its own content is not in it | none |
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import PngImagePlugin

from us_i2v.data.clips import open_clip
from us_i2v.data.decoding.arrays import READ_ERRORS
from us_i2v.data.decoding.ffmpeg import DEMUXERS, VIDEO_SUFFIXES, ffmpeg_exe, first_error
from us_i2v.data.decoding.folders import SIDECAR, frame_files
from us_i2v.data.limits import limits
from us_i2v.data.stills import PILLOW_ERRORS, collapse_gray, open_image, read_still, require_file
from us_i2v.errors import InputError, OutputError
from us_i2v.provenance import MARKER, MAX_TEXT, DamagedRecordError, Provenance, parse_line, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from us_i2v.types import Image

ENTRY = "provenance"
"""Name of the array in an .npz and of the key in a folder's clip.json."""
CHUNK = "us-i2v"
"""Keyword of the PNG text chunk."""
BLOCK = "US-I2V PROVENANCE"
"""Private creator of the DICOM element."""
GROUP, ELEMENT = 0x0009, 0x01


def frames_sha256(frames: Iterable[Image]) -> str:
    """Hash frames, (H, W) or (H, W, 3) uint8 each; see `provenance`."""
    digest = hashlib.sha256()
    for frame in frames:
        plain = collapse_gray(frame)
        digest.update(f"{','.join(str(side) for side in plain.shape)};".encode())
        digest.update(np.ascontiguousarray(plain).data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raises `InputError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.", "Check the path and its rights.") from error


def video_sha256(path: Path) -> str:
    """Return the SHA-256 of a video's coded packets; raises `InputError`."""
    out = _ffmpeg(path, "-map", "0:v:0", "-c", "copy", "-f", "streamhash", "-hash", "sha256", "-")
    found = re.search(r"SHA256=([0-9a-fA-F]{64})", out)
    if found is None:
        raise InputError(f"'{path}' holds no video stream.", "Check that it is what its name says.")
    return found.group(1).lower()


def tag_video(source: Path, target: Path, note: str, record: Provenance, fps: float) -> Provenance:
    """Copy a video's packets into `target`, of the same kind, with a comment of the note and the record.

    Returns:
        The record that was written: with the hash of the packets.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        whole = record.of_content("packets", video_sha256(source), fps)
        comment = f"{note} {MARKER}{whole.line()}"
        _ffmpeg(
            source,
            *("-map", "0:v:0", "-c", "copy", "-fflags", "+bitexact", "-map_metadata", "-1"),
            *(() if target.suffix.lower() != ".mp4" else ("-movflags", "+faststart")),
            *("-metadata", f"comment={comment}", f"file:{target}"),
        )
    except InputError as error:
        raise OutputError(f"'{target}' cannot be written: {error.message}", "Check space and rights.") from error
    return whole


def read_record(path: Path) -> Provenance | None:
    """Return the record inside a clip, its folder or a frame of it; None if there is none.

    Raises:
        DamagedRecordError: A record is there and damaged, or the clip is and still names its record.
        InputError: The clip cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder_record(path)
    require_file(path, "Clip")
    if suffix in VIDEO_SUFFIXES:
        return parse_line(_comment(_ffmpeg(path, "-f", "ffmetadata", "-")), str(path))
    if suffix == ".npz":
        return _array_record(path)
    if suffix in (".gif", ".png"):
        return _picture_record(path)
    if suffix == ".dcm":
        return _dicom_record(path)
    return None


def content_sha256(path: Path, kind: Literal["packets", "frames"]) -> str:
    """Hash a clip's content as its record states it; raises `InputError`."""
    if kind == "packets":
        return video_sha256(path)
    if path.is_dir():
        return frames_sha256(read_still(file) for file in frame_files(path))
    return frames_sha256(open_clip(path).frames())


def other_rate(path: Path, record: Provenance) -> float | None:
    """Return the frame rate (1/s) that a clip states, if it is not the recorded one.

    Rates are the same within 1 % and, over the whole clip, a hundredth of a second, which is the unit of a GIF. None is
    also returned where clip or record state no rate; raises `InputError`.
    """
    stated = _packet_times(path) if record.content == "packets" else _frame_times(path)
    # A GIF has no frames shorter than a hundredth of a second.
    if stated is None or record.fps <= 0 or (path.suffix.lower() == ".gif" and record.fps > 100):
        return None
    intervals, seconds = stated
    recorded = intervals / record.fps
    return None if abs(seconds - recorded) <= 0.01 + 0.01 * recorded else intervals / seconds


def _packet_times(path: Path) -> tuple[int, float] | None:
    """Return a video's number of intervals between packets and their sum in seconds; None without any."""
    out = _ffmpeg(path, "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-")
    unit = re.search(r"^#tb 0: (\d+)/(\d+)", out, re.MULTILINE)
    stamps = re.findall(r"^0, *(-?\d+|NOPTS), *(-?\d+|NOPTS),", out, re.MULTILINE)
    for times in ([shown for _, shown in stamps], [decoded for decoded, _ in stamps]):
        if unit is not None and len(times) > 1 and "NOPTS" not in times:
            span = max(map(int, times)) - min(map(int, times))
            return (len(times) - 1, span * int(unit[1]) / int(unit[2])) if span > 0 else None
    return None


def _frame_times(path: Path) -> tuple[int, float] | None:
    clip = open_clip(path)
    return (clip.n_frames, clip.n_frames / clip.fps) if clip.fps_known else None


def png_text(record: Provenance | None) -> PngImagePlugin.PngInfo | None:
    """Return the text chunk of a frame."""
    if record is None:
        return None
    info = PngImagePlugin.PngInfo()
    info.add_text(CHUNK, MARKER + record.line())
    return info


def gif_comment(text: str) -> bytes:
    """Return a GIF's comment extension; texts longer than 255 bytes take several blocks (GIF89a, 24)."""
    raw = text.encode("ascii", "replace")
    blocks = [raw[first : first + 255] for first in range(0, len(raw), 255)]
    return b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00"


def _ffmpeg(path: Path, *arguments: str) -> str:
    """Run ffmpeg over a local file; returns what it printed, raises `InputError` with its first complaint."""
    cap = limits().seconds
    command = [ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", "-v", "level+error", "-y"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS, "-i", f"file:{path}", *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=cap, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"Reading '{path}' took more than {cap:g} s.", "Raise --max-seconds.") from error
    if done.returncode != 0:
        reason = first_error(done.stderr.decode("utf-8", "replace")) or f"exit status {done.returncode}"
        raise InputError(f"'{path}' cannot be read as video ({reason}).", "Check that it is complete.")
    return done.stdout.decode("utf-8", "replace")


def _comment(metadata: str) -> str:
    """Return the comment of an ffmetadata text (";FFMETADATA1", key=value lines with backslash escapes)."""
    found = re.search(r"^comment=((?:\\[\s\S]|[^\\\n])*)", metadata, re.IGNORECASE | re.MULTILINE)
    return "" if found is None else re.sub(r"\\([\s\S])", r"\1", found.group(1))


def _folder_record(folder: Path) -> Provenance | None:
    path = folder / SIDECAR
    if path.is_file() and path.stat().st_size <= 2 * MAX_TEXT:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it is no table")
            if ENTRY in values:
                return parse_record(json.dumps(values[ENTRY]), str(path))
        except DamagedRecordError as error:
            raise DamagedRecordError(str(path), error, _record_of_frames(folder)) from error
        except (OSError, ValueError, RecursionError) as error:
            record = _record_of_frames(folder)
            if record is None:
                raise InputError(f"'{path}' is damaged ({type(error).__name__}).", "Restore it.") from error
            raise DamagedRecordError(str(path), error, record) from error
    return _record_of_frames(folder)


def _record_of_frames(folder: Path) -> Provenance | None:
    """Return the record of the first frame that has one, damaged frames left out; None if none has."""
    for file in frame_files(folder):
        if file.suffix.lower() == ".png":
            with suppress(InputError):
                record = _picture_record(file)
                if record is not None:
                    return record
    return None


def _array_record(path: Path) -> Provenance | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{ENTRY}.npy" not in archive.namelist():
                return None
            # Four bytes a character and a header, see numpy.lib.format.
            if archive.getinfo(f"{ENTRY}.npy").file_size > 4 * MAX_TEXT + 1024:
                raise ValueError("its record is too long")
        with np.load(path, allow_pickle=False) as loaded:
            text = str(loaded[ENTRY].reshape(-1)[0])
    except READ_ERRORS as error:
        # What a cut takes first is the archive's directory; the last of its arrays is the record.
        if _ends_with_record(path):
            raise DamagedRecordError(str(path), error) from error
        raise InputError(f"'{path}' cannot be read ({type(error).__name__}).", "Check that it is complete.") from error
    return parse_record(text, str(path))


def _ends_with_record(path: Path) -> bool:
    """Tell whether the end of a damaged archive names the record's array."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 5 * MAX_TEXT))
        return f"{ENTRY}.npy".encode() in file.read()
    return False


def _picture_record(path: Path) -> Provenance | None:
    with open_image(path) as picture:
        try:
            if picture.format == "GIF":
                comment = picture.info.get("comment", b"")
                text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
            else:
                text = str(picture.info.get(CHUNK, ""))
        except PILLOW_ERRORS as error:
            raise InputError(f"'{path}' cannot be read ({type(error).__name__}).", "Copy it again.") from error
    return parse_line(text, str(path))


def _dicom_record(path: Path) -> Provenance | None:
    from us_i2v.data.dicom.detect import require_pydicom

    require_pydicom(path)
    from us_i2v.data.dicom.files import mapped, read_header, reading

    with mapped(path) as stream, reading(path):
        header = read_header(stream, path)
        try:
            text = str(header.private_block(GROUP, BLOCK)[ELEMENT].value)
        except KeyError:
            return None
    return parse_record(text, str(path))
