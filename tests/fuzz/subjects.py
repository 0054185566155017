"""What is fuzzed: small whole files of every kind that is read, and the reader of each."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from tests.data.dicom_files import compressed, jpeg, jpeg2000, save, ultrasound
from tests.data.test_volumes import meta_image, nifti
from tests.factories import small_cinn_weights, small_weights, textured_still
from us_i2v import __version__
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.classifier import ClassifierHeader, load_classifier, save_classifier
from us_i2v.config import read_mapping
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.masks import read_mask
from us_i2v.data.stills import read_still
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.data.verification import verify
from us_i2v.data.writers import write_clip
from us_i2v.latents_file import load_latent, save_latent
from us_i2v.models.classifiers import ClassifierConfig, build_classifier
from us_i2v.provenance import Provenance, Sidecar, sidecar_path
from us_i2v.weights import load_weights

SIZE = (40, 48)
RECORD = Provenance(command="generate", still_sha256="12" * 32, weights_sha256="ab" * 32, seed=7)

SMALL_CLASSIFIER = ClassifierHeader(
    package_version=__version__,
    model=ClassifierConfig(name="c3d", width=0.01, size=64),
    classes=("benign", "malignant"),
    clips=ClipsConfig(),
    crf=18,
    frame_interval_s=0.05,
    diet="real",
    real_clips=4,
    synthetic_clips=0,
    training_groups=("p1", "p2"),
    clip_sha256=("12" * 32,),
)


@dataclass(frozen=True)
class Subject:
    """A file, its neighbours, and what reads it.

    Attributes:
        name: Of the mutated file, relative to its folder.
        content: Its bytes.
        read: Reads it: (the file in its folder) -> anything.
        neighbours: Other files that must lie there.
        weight: How often it is drawn; files that ffmpeg reads take long.
    """

    name: str
    content: bytes
    read: Callable[[Path], object]
    neighbours: dict[str, bytes]
    weight: float = 1.0


def read_clip(path: Path) -> None:
    """Scan a clip, read all frames, look for its record."""
    clip = open_clip(path)
    clip.read(range(clip.n_frames))
    verify(path)


def read_frame_folder(path: Path) -> None:
    """The same for the folder that a frame or clip.json lies in."""
    read_clip(path.parent)


def read_data_set(path: Path) -> None:
    """List the samples of the folder that a table lies in."""
    find_samples(path.parent)


def read_echonet(path: Path) -> None:
    """List the samples of an EchoNet-like folder."""
    find_samples(path.parent)


def read_weights(path: Path) -> None:
    """Open weights and build every network that they describe."""
    weights = load_weights(path)
    weights.latent_statistics()
    weights.autoencoder()
    if weights.header.kind == "lddm":
        weights.denoiser()
    if weights.header.kind == "cinn":
        weights.cinn()


def read_classifier(path: Path) -> None:
    """Open a classifier's weights and build it."""
    load_classifier(path)


def read_latent(path: Path) -> None:
    """Open a latent file."""
    load_latent(path, space="0" * 16, shape=(4, 3, 2, 2))


def read_size_checked_mask(path: Path) -> None:
    """Read a mask for a still of `SIZE`."""
    read_mask(path, SIZE)


def read_settings(path: Path) -> None:
    """Read a settings file."""
    read_mapping(path)
    AugmentSettings.load(path)


def verify_beside(path: Path) -> None:
    """Verify the clip that a JSON file lies beside."""
    verify(path.with_suffix(""))


def subjects(folder: Path) -> list[Subject]:
    """Make all subjects; `folder` is used for the writing and may be removed afterwards."""
    gray = textured_still(*SIZE)
    rgb = textured_still(*SIZE, colour=True)
    frames = np.stack([np.roll(gray, t, axis=1) for t in range(4)])
    colour = np.stack([np.roll(rgb, t, axis=1) for t in range(4)])
    found = [
        Subject(name, _picture(pixels, kind, **options), read, {})
        for name, pixels, kind, options, read in (
            ("gray.png", gray, "PNG", {}, read_still),
            ("rgb.png", rgb, "PNG", {}, read_still),
            ("deep.png", gray.astype(np.uint16) * 257, "PNG", {}, read_still),
            ("mask.png", (gray > 128).astype(np.uint8) * 255, "PNG", {}, read_size_checked_mask),
            ("gray.jpg", gray, "JPEG", {}, read_still),
            ("rgb.jpg", rgb, "JPEG", {"progressive": True}, read_still),
            ("rgb.tif", rgb, "TIFF", {"compression": "tiff_lzw"}, read_still),
            ("float.tif", gray.astype(np.float32) / 255, "TIFF", {}, read_still),
            ("gray.bmp", gray, "BMP", {}, read_still),
            ("gray.gif", gray, "GIF", {}, read_still),
        )
    ]
    found += _clips(folder, frames, colour)
    found += _volumes(frames) + _dicom(folder, frames, colour)
    found += _tables(folder, gray) + _weights(folder)
    return found


def _clips(folder: Path, frames: np.ndarray, colour: np.ndarray) -> list[Subject]:
    found = []
    for name, content, weight in (
        ("a.mp4", frames, 0.4),
        ("c.mp4", colour, 0.2),
        ("a.mkv", frames, 0.4),
        ("a.avi", frames, 0.4),
        ("a.gif", frames, 1.0),
        ("c.gif", colour, 1.0),
        ("a.npz", frames, 1.0),
        ("c.npz", colour, 1.0),
    ):
        path = write_clip(folder / name, content, 20.0, record=RECORD)
        found.append(Subject(name, path.read_bytes(), read_clip, {}, weight))
    out = io.BytesIO()
    np.save(out, frames)
    found.append(Subject("a.npy", out.getvalue(), read_clip, {}))
    out = io.BytesIO()
    np.savez(out, frames=np.asfortranarray(frames.astype(np.float32) / 255), fps=np.float32(20))
    found.append(Subject("f.npz", out.getvalue(), read_clip, {}))
    write_clip(folder / "run", frames, 20.0, record=RECORD)
    files = {f"run/{file.name}": file.read_bytes() for file in sorted((folder / "run").iterdir())}
    for name in ("run/clip.json", "run/frame_0001.png"):
        others = {other: content for other, content in files.items() if other != name}
        found.append(Subject(name, files[name], read_frame_folder, others))
    return found


def _volumes(frames: np.ndarray) -> list[Subject]:
    plain, raw = nifti(frames), frames.tobytes()
    return [
        Subject("a.nii", plain, read_clip, {}),
        Subject("a.nii.gz", gzip.compress(plain, mtime=0), read_clip, {}),
        Subject("a.mha", meta_image(frames) + raw, read_clip, {}),
        Subject("z.mha", meta_image(frames, CompressedData=True) + zlib.compress(raw), read_clip, {}),
        Subject("a.mhd", meta_image(frames, data="a.raw"), read_clip, {"a.raw": raw}),
    ]


def _dicom(folder: Path, frames: np.ndarray, colour: np.ndarray) -> list[Subject]:
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

    made = {
        "a.dcm": ultrasound(frames),
        "c.dcm": ultrasound(colour),
        "j.dcm": compressed(ultrasound(frames), [jpeg(frame) for frame in frames], JPEGBaseline8Bit),
        "k.dcm": compressed(ultrasound(frames), [jpeg2000(frame) for frame in frames], JPEG2000Lossless),
    }
    found = [Subject(name, save(folder / name, data).read_bytes(), read_clip, {}) for name, data in made.items()]
    rle = ultrasound(frames)
    rle.compress("1.2.840.10008.1.2.5")
    found.append(Subject("r.dcm", save(folder / "r.dcm", rle).read_bytes(), read_clip, {}))
    return found


def _tables(folder: Path, gray: np.ndarray) -> list[Subject]:
    still = _picture(gray, "PNG")
    manifest = "file,label,group,split,mask,fps\na.png,benign,p1,train,m.png,25\nb.png,malignant,p2,val,,\n"
    listed = "FileName,EF,FPS,NumberOfFrames,Split\nx.avi,55,50,100,TRAIN\ny,60,30,20,TEST\n"
    pictures = {name: still for name in ("a.png", "b.png", "m.png")}
    clip = write_clip(folder / "beside.npz", gray[None], 20.0, record=RECORD)
    sidecar = Sidecar(record=RECORD, file="beside.npz", file_sha256="34" * 32).dump()
    return [
        Subject("manifest.csv", manifest.encode(), read_data_set, pictures),
        Subject("FileList.csv", listed.encode(), read_echonet, {"Videos/x.avi": b"x", "Videos/y.avi": b"y"}),
        Subject("settings.json", AugmentSettings().dump().encode(), read_settings, {}),
        Subject("settings.toml", b'seed = 3\nending = "npz"\n[options]\nmotion = 0.5\n', read_settings, {}),
        Subject(sidecar_path(clip).name, sidecar.encode(), verify_beside, {"beside.npz": clip.read_bytes()}),
    ]


def _weights(folder: Path) -> list[Subject]:
    lddm = small_weights(folder / "w.safetensors", labels=("benign",), controls=True)
    cinn = small_cinn_weights(folder / "c.safetensors")
    classifier = folder / "k.safetensors"
    network = build_classifier(SMALL_CLASSIFIER.model, 2)
    save_classifier(classifier, SMALL_CLASSIFIER, network)
    latent = folder / "l.safetensors"
    save_latent(latent, torch.ones(1, 4, 3, 2, 2), space="0" * 16, weights_sha256="0" * 64, frames=16, fps=10.0)
    return [
        Subject("w.safetensors", lddm.read_bytes(), read_weights, {}, 2.0),
        Subject("c.safetensors", cinn.read_bytes(), read_weights, {}),
        Subject("k.safetensors", classifier.read_bytes(), read_classifier, {}),
        Subject("l.safetensors", latent.read_bytes(), read_latent, {}, 2.0),
    ]


def _picture(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    PillowImage.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def safetensors_header(content: bytes) -> tuple[dict[str, object], bytes] | None:
    """Split a safetensors file into its header and the rest; None if it is none."""
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= len(content) - 8:
        return None
    try:
        header = json.loads(content[8 : 8 + length])
    except ValueError:
        return None
    return (header, content[8 + length :]) if isinstance(header, dict) else None
