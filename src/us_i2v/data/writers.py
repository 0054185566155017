"""Writing clips: the ending of the output's name chooses the container.

| ending | content | exact |
|---|---|---|
| .mp4 | H.264, yuv420p, crf 12; with `exact` lossless gray or RGB | with `exact` |
| .mkv | FFV1 | always |
| .avi | motion JPEG; with `exact` FFV1 | with `exact` |
| .gif | 256 grays, or 256 colours a frame; times in 1/100 s | gray only |
| .npz | `frames` uint8 (T, H, W[, 3]), then `fps` float64 | always |
| .dcm | Ultrasound Multi-frame Image Storage (needs the extra `dicom`), see `dicom.writing` | but for the mark |
| folder (no ending, or a final "/") | frame_0000.png ... and clip.json with the rate | always |

The same frames, rate and comment give the same bytes: one encoder thread, no clock times, no version marks in
the container. Everything is written under a temporary name beside the target and renamed when complete, so
a failure leaves nothing behind. H.264 in yuv420p needs even sizes: odd pictures get one more edge line, and
the true size is noted in the file's comment, by which `clips` crops them again.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
import subprocess
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import GifImagePlugin, PngImagePlugin
from PIL import Image as PillowImage

from us_i2v.data.atomic import check_writable, publish, temporary_beside, unwritable, write_bytes
from us_i2v.data.decoding.ffmpeg import SWS_FLAGS, ffmpeg_exe
from us_i2v.data.decoding.folders import SIDECAR
from us_i2v.data.dicom.detect import require_pydicom
from us_i2v.data.dicom.output import DicomOutput
from us_i2v.data.embedding import ENTRY, content_sha256, frames_sha256, gif_comment, png_text, tag_video
from us_i2v.errors import OutputError
from us_i2v.provenance import MARKER

if TYPE_CHECKING:
    from us_i2v.provenance import Provenance
    from us_i2v.types import Frames, Image

OUTPUT_SUFFIXES = (".mp4", ".mkv", ".avi", ".gif", ".npz", ".dcm")
CRF = 12
PRESET = "veryfast"
"""Chosen against "medium" at crf 16: on speckle the mean error is lower at 10, 25 and 61 fps (2.1 against 2.6
gray levels at 25), in half the encoder's time, for 1.5 to 1.7 times the bytes. x264 spends less on a frame the
higher the rate is: the error at 61 fps is about twice that at 10 fps. Use `exact` where that matters."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def write_clip(
    path: Path | str,
    frames: Frames,
    fps: float,
    *,
    exact: bool = False,
    comment: str = "",
    dicom: DicomOutput | None = None,
    record: Provenance | None = None,
) -> Path:
    """Write a clip; what is at `path` already is replaced when the new file is complete.

    Args:
        path: Target; its ending chooses the container (see the module's table).
        frames: uint8, (T, H, W) or (T, H, W, 3), T >= 1.
        fps: Frames per second, > 0.
        exact: Lossless coding where the container offers a choice.
        comment: One line kept in the file's metadata where the container has a place for it.
        dicom: How a `.dcm` is written; with the mark SYNTHETIC and the comment as description unless given.
        record: How the clip was made, put into the container; see `embedding`.

    Returns:
        The path written.

    Raises:
        OutputError: Unknown ending, unusable frames or rate, or the target cannot be written.
        InputError: For a `.dcm`, pydicom is missing, or frame 0 has burned-in text that is not to be kept.
    """
    target = Path(path)
    check_target(path)
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[3:] not in ((), (3,)) or not frames.size:
        raise OutputError(
            f"A clip of shape {frames.shape} and type {frames.dtype} cannot be written to '{path}'.",
            "Give uint8 frames (T, H, W) or (T, H, W, 3).",
        )
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise OutputError(f"Frame rate {fps:g} for '{path}' is not in 0..1000.", "Give for example 25.")
    frames = np.ascontiguousarray(frames)
    line = " ".join(comment.split())
    suffix = _ending(path)
    if suffix in (".mp4", ".mkv", ".avi"):
        _write_video(target, frames, fps, suffix, exact, line, record)
    elif suffix == ".gif":
        _write_gif(target, frames, fps, line, record)
    elif suffix == ".npz":
        _write_npz(target, frames, fps, record)
    elif suffix == ".dcm":
        from us_i2v.data.dicom.writing import write_dicom

        write_dicom(target, frames, fps, replace(dicom or DicomOutput(description=line), record=record))
    else:
        _write_folder(target, frames, fps, line, record)
    return target


def check_target(path: Path | str) -> None:
    """Raise `OutputError` unless a clip can be written at `path`; leaves nothing behind."""
    target = Path(path)
    suffix = _ending(path)
    if suffix and suffix not in OUTPUT_SUFFIXES:
        raise OutputError(
            f"'{path}' ends in '{target.suffix}', which is no kind of clip that can be written.",
            f"Use {', '.join(OUTPUT_SUFFIXES)}, or a name without an ending for a folder of PNG frames.",
        )
    if suffix == ".dcm":
        require_pydicom(target)
    if suffix and target.is_dir():
        raise OutputError(f"'{path}' is a folder.", "Give a file name, or remove the folder.")
    if not suffix and target.is_dir() and not _is_ours(target):
        raise OutputError(f"Folder '{path}' holds other files than frames.", "Give a new name or an empty folder.")
    check_writable(target)


def write_still(path: Path | str, picture: Image) -> Path:
    """Write one still, (H, W) or (H, W, 3) uint8, as PNG; atomic and deterministic; raises `OutputError`."""
    target = Path(path)
    write_bytes(target, _png(picture))
    return target


def _write_video(
    path: Path, frames: Frames, fps: float, suffix: str, exact: bool, comment: str, record: Provenance | None
) -> None:
    gray = frames.ndim == 3
    height, width = frames.shape[1:3]
    lossless = exact or suffix == ".mkv"
    even = lossless or suffix == ".avi"
    stored = frames if even else _pad_to_even(frames)
    note = f"us-i2v size={height}x{width}" + (f" {comment}" if comment else "")
    command = [
        *(
            ffmpeg_exe(),
            "-hide_banner",
            "-nostdin",
            "-v",
            "error",
            "-y",
            "-threads",
            "1",
            "-filter_threads",
            "1",
        ),
        *("-f", "rawvideo", "-pix_fmt", "gray" if gray else "rgb24"),
        *("-video_size", f"{stored.shape[2]}x{stored.shape[1]}", "-framerate", f"{fps:.6f}", "-i", "pipe:0"),
        *_codec(suffix, gray, lossless),
        *("-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"),
        *("-metadata", f"comment={note}"),
    ]
    with temporary_beside(path) as part:
        _encode([*command, f"file:{part}"], stored, path)
        if record is None:
            publish(part, path)
            return
        with temporary_beside(path) as tagged:
            tag_video(part, tagged, note, record, fps)
            publish(tagged, path)


def _codec(suffix: str, gray: bool, lossless: bool) -> list[str]:
    """Return the encoder's options."""
    limited = ["-vf", f"scale=out_range=tv:out_color_matrix=bt601:flags={SWS_FLAGS}"]
    tags = ["-color_range", "tv", "-colorspace", "smpte170m", "-color_trc", "smpte170m"]
    tags += ["-color_primaries", "smpte170m"]
    if suffix == ".mp4" and lossless:
        pixels = ["-c:v", "libx264", "-pix_fmt", "gray"] if gray else ["-c:v", "libx264rgb", "-pix_fmt", "rgb24"]
        return [*pixels, "-qp", "0", "-preset", PRESET, "-movflags", "+faststart"]
    if suffix == ".mp4":
        h264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(CRF), "-preset", PRESET]
        return [*limited, *h264, *tags, "-movflags", "+faststart"]
    if lossless:
        pixels = ["-pix_fmt", "gray"] if gray else ["-pix_fmt", "bgr0"]
        return ["-c:v", "ffv1", "-level", "3", "-slices", "4", "-slicecrc", "1", *pixels]
    full = ["-vf", f"scale=out_range=pc:out_color_matrix=bt601:flags={SWS_FLAGS}"]
    return [*full, "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"]


def _encode(command: list[str], frames: Frames, path: Path) -> None:
    """Feed frames to ffmpeg one by one; raises `OutputError` with its first complaint if it fails."""
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log) as process:
            if process.stdin is None:
                raise RuntimeError("ffmpeg was started without a pipe")
            try:
                for frame in frames:
                    process.stdin.write(frame.data)
                process.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg has given up; its exit status and words follow
            except BaseException:
                process.kill()
                raise
        log.seek(0)
        words = log.read().decode("utf-8", "replace").strip().splitlines()
    if process.returncode != 0:
        reason = words[0][:160] if words else f"exit status {process.returncode}"
        raise OutputError(f"ffmpeg could not write '{path}' ({reason}).", "Check space and permissions there.")


def _write_gif(path: Path, frames: Frames, fps: float, comment: str, record: Provenance | None) -> None:
    """Write every frame whole: Pillow's own writer would merge equal neighbours and lose their count."""
    height, width = frames.shape[1:3]
    if max(height, width) > 65535:
        raise OutputError(f"'{path}': a GIF cannot be {width}x{height}.", "Use .mp4 or .npz.")
    gray_table = bytes(value for value in range(256) for _ in range(3))
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + gray_table
    head += b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
    out = io.BytesIO()
    for index, frame in enumerate(frames):
        # Rounding the running total keeps the mean rate right where 100 / fps is not whole.
        delay = round((index + 1) * 100 / fps) - round(index * 100 / fps)
        out.write(b"\x21\xf9\x04\x04" + struct.pack("<H", delay) + b"\x00\x00")
        out.write(_gif_image(frame))
    out.write(b"\x3b")
    if record is not None:
        with temporary_beside(path) as plain:
            write_bytes(plain, head + out.getvalue())
            # Colours are reduced to 256 a frame: what is hashed is what a reader sees.
            whole = record.of_content("frames", content_sha256(plain, "frames"), fps)
        comment = f"{comment} {MARKER}{whole.line()}".strip()
    write_bytes(path, head + (gif_comment(comment) if comment else b"") + out.getvalue())


def _gif_image(frame: Image) -> bytes:
    """Return the image descriptor, a local palette for colour, and the packed pixels."""
    height, width = frame.shape[:2]
    picture = PillowImage.fromarray(frame)
    table, flags = b"", 0
    if frame.ndim == 3:
        picture = picture.quantize(256, method=PillowImage.Quantize.MEDIANCUT, dither=PillowImage.Dither.NONE)
        table = bytes(picture.getpalette() or []).ljust(768, b"\x00")
        flags = 0x87
    blocks = GifImagePlugin.getdata(PillowImage.fromarray(np.asarray(picture)))
    # The first block is Pillow's own descriptor, for a picture without a palette of its own.
    return b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, flags) + table + b"".join(blocks[1:])


def _write_npz(path: Path, frames: Frames, fps: float, record: Provenance | None) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {"frames": frames, "fps": np.array(fps, np.float64)}
    if record is not None:
        arrays[ENTRY] = np.array(_of_frames(record, frames, fps).line())
    with temporary_beside(path) as part:
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
                for name, array in arrays.items():
                    entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.create_system, entry.external_attr = 3, 0o644 << 16
                    with archive.open(entry, "w", force_zip64=array.nbytes >= 1 << 31) as member:
                        np.lib.format.write_array(member, array, (1, 0), allow_pickle=False)
        except OSError as error:
            raise unwritable(path, error) from error
        publish(part, path)


def _write_folder(path: Path, frames: Frames, fps: float, comment: str, record: Provenance | None) -> None:
    digits = max(4, len(str(len(frames) - 1)))
    whole = None if record is None else _of_frames(record, frames, fps)
    sidecar: dict[str, object] = {"fps": fps, "frames": len(frames)} | ({"comment": comment} if comment else {})
    if whole is not None:
        sidecar[ENTRY] = whole.model_dump(mode="json")
    with temporary_beside(path) as part:
        try:
            part.mkdir()
            for index, frame in enumerate(frames):
                (part / f"frame_{index:0{digits}d}.png").write_bytes(_png(frame, png_text(whole)))
            (part / SIDECAR).write_text(json.dumps(sidecar, sort_keys=True) + "\n", encoding="utf-8")
            old = part.with_name(part.name + ".old")
            if path.is_dir():
                path.replace(old)
            part.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise unwritable(path, error) from error


def _of_frames(record: Provenance, frames: Frames, fps: float) -> Provenance:
    return record.of_content("frames", frames_sha256(frames), fps)


def _png(picture: Image, text: PngImagePlugin.PngInfo | None = None) -> bytes:
    out = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(picture)).save(out, "PNG", compress_level=6, pnginfo=text)
    return out.getvalue()


def _pad_to_even(frames: Frames) -> Frames:
    """Repeat the last row and column where the height or width is odd."""
    margin = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)][: frames.ndim]
    return np.pad(frames, margin, mode="edge") if any(sum(pair) for pair in margin) else frames


def _ending(path: Path | str) -> str:
    """Return the ending in lower case; "" for a folder."""
    return "" if str(path).endswith("/") else Path(path).suffix.lower()


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what `_write_folder` writes, so that it may be replaced."""
    names = [entry.name for entry in folder.iterdir()]
    return all(name == SIDECAR or (name.startswith("frame_") and name.endswith(".png")) for name in names)
