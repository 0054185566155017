"""What `segmentation.py` trains on: stills with masks, and for each the pictures that an arm makes of it.

A still is first brought to `work` pixels along its longer side; every arm deforms it there, and only then is the
picture stretched to the network's square (antialiased; masks cut at one half). Picture 0 of all arms is the still.
A deformed picture is I'(p) = I(p + b(p)), cubic for gray values, linear and cut at one half for masks, mirrored at the
borders:

    static      b = 0: the still again and again
    affine      rotation, isotropic scale, shear and shift about the centre (ranges: `AFFINE`)
    elastic     b: cubic through normal displacements on a coarse 4x4 grid, whose deviation is drawn for each picture
                (Ronneberger et al. 2015, section 3.1: 10 px of 512, which is 2 % of the side; here `ELASTIC`)
    generated   frames of `us_i2v` clips with carried masks, options as `us-i2v augment` has them by default
    moved       those frames, each under an affine change of its own; not among the arms that were fixed beforehand
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from train_bundled import busi_split, read_rows

from us_i2v.data.atomic import write_bytes
from us_i2v.data.datasets import find_samples
from us_i2v.data.masks import read_masks
from us_i2v.data.mixing import HeldOut, find_seen
from us_i2v.data.stills import read_still
from us_i2v.data.transforms import to_gray
from us_i2v.errors import DataError
from us_i2v.metrics.publishers import sha256_of
from us_i2v.pipeline import ImageToVideo
from us_i2v.seeding import derive_seed, numpy_generator
from us_i2v.still import resize_longer
from us_i2v.types import Frames, Image, Mask

ARMS = ("static", "affine", "elastic", "generated")
EXPLORED = ("moved",)
"""Arms that were thought of after results had been seen: shown, and in no rule."""

AFFINE = {"rotation": 10.0, "scale": 1.1, "shear": 0.1, "shift": 0.05}
"""Largest rotation (degrees), scale factor (and its inverse), shear, and shift as a share of the side."""

ELASTIC = (0.005, 0.04)
"""Standard deviation of the grid's displacements as a share of the side: drawn log-uniformly, 2 % among it."""

GRID = 4
SPLITS = {"reserved": "test", "val": "val", "train": "train"}


@dataclass(frozen=True)
class Still:
    """A still on disk; `masks` is empty for one without a lesion."""

    name: str
    path: Path
    masks: tuple[Path, ...]
    label: str
    group: str
    split: str

    def read(self, work: int) -> tuple[Image, Mask]:
        """Gray still (H, W) and its mask, `work` pixels along the longer side."""
        gray = to_gray(read_still(self.path)[None])[0]
        picture, mask = resize_longer(gray, read_masks(self.masks, gray.shape), work)
        assert mask is not None
        return picture, mask


def stills_of(data: Path) -> list[Still]:
    """Stills of a data set with stated splits, or of the folder that `train_bundled.py` takes, in a fixed order.

    Of the latter only BUSI counts, and its split is the one under which the bundled weights were trained: the
    reserved groups are tested on.

    Raises:
        DataError: No still has a split, a split is missing, or a group is on two sides.
    """
    manifest = data / "manifest.csv"
    if manifest.is_file() and "patient_or_group" in manifest.open(encoding="utf-8").readline():
        stills = _busi(data)
    else:
        stills = [
            Still(s.path.relative_to(data).as_posix(), s.path, s.masks, s.label or "", s.group, s.split)
            for s in find_samples(data)
            if s.kind == "still" and s.split is not None
        ]
    sides: dict[str, set[str]] = {}
    for still in stills:
        sides.setdefault(still.group, set()).add(still.split)
    divided = sorted(group for group, splits in sides.items() if len(splits) > 1)
    if divided:
        raise DataError(f"Group '{divided[0]}' is in {' and '.join(sorted(sides[divided[0]]))}.", "Mend the manifest.")
    for split in SPLITS.values():
        if not any(still.split == split and still.masks for still in stills):
            raise DataError(f"'{data}' has no still with a mask in split '{split}'.", "State splits in manifest.csv.")
    return sorted(stills, key=lambda still: still.name)


def _busi(data: Path) -> list[Still]:
    rows = [row for row in read_rows(data) if row["file"].startswith("images/busi/")]
    masks: dict[str, list[Path]] = {}
    for row in rows:
        stem, marked, _ = Path(row["file"]).stem.partition("_mask")
        if marked:
            masks.setdefault(stem, []).append(data / row["file"])
    found = []
    for row in rows:
        path = Path(row["file"])
        if "_mask" not in path.stem:
            group, label = row["patient_or_group"], row["class_label"]
            own = () if label == "normal" else tuple(masks.get(path.stem, ()))
            found.append(Still(row["file"], data / path, own, label, group, SPLITS[busi_split(group)]))
    return found


def stills_sha256(stills: Sequence[Still]) -> str:
    """Hash of names, groups, labels, splits and the content of all files, so that no folder mixes two data sets."""
    rows = [
        [s.name, s.group, s.label, s.split, *(sha256_of(path) for path in (s.path, *s.masks))]
        for s in sorted(stills, key=lambda s: s.name)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def check_unseen(header: Any, stills: Sequence[Still]) -> None:
    """Raise `DataError` if weights were trained, by their header, on a test still or on one of its group."""
    held = HeldOut.of(still for still in stills if still.split == "test")
    seen = find_seen(header, held.groups, held.sha256)
    if seen:
        raise DataError(f"The weights were trained on {seen[0]}, which is tested on.", "Use weights that were not.")


def subset(stills: Sequence[Still], size: int, seed: int) -> list[Still]:
    """The training stills of one size and seed; with the same seed, a larger size holds a smaller one. 0 is all."""
    pool = [still for still in stills if still.split == "train"]
    if size == 0:
        return pool
    if size > len(pool):
        raise DataError(f"{size} training stills are asked for, {len(pool)} are there.", "Choose smaller --sizes.")
    # A still without a lesion cannot show where one is: the first one has one.
    order = sorted(pool, key=lambda still: derive_seed(seed, "subset", still.name))
    first = next(still for still in order if still.masks)
    return [first, *(still for still in order if still is not first)][:size]


def squared(pictures: Frames, masks: Mask, side: int) -> tuple[Frames, Mask]:
    """(P, H, W) uint8 and bool -> the same (P, side, side), stretched, antialiased."""

    def resize(values: npt.NDArray[Any]) -> torch.Tensor:
        x = torch.from_numpy(values.astype(np.float32))[:, None]
        return F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)[:, 0]

    return resize(pictures).round().clamp(0, 255).to(torch.uint8).numpy(), (resize(masks) > 0.5).numpy()


def affine(picture: Image, mask: Mask, rng: np.random.Generator, count: int) -> tuple[Frames, Mask]:
    """`count` affine variants."""
    height, width = picture.shape
    half = np.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = np.indices(picture.shape, dtype=np.float64) - half[:, None, None]
    made = []
    for _ in range(count):
        draw = rng.uniform(-1, 1, 5)
        angle, scale = np.deg2rad(AFFINE["rotation"]) * draw[0], AFFINE["scale"] ** draw[1]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = scale * turn @ np.array([[1.0, 0.0], [AFFINE["shear"] * draw[2], 1.0]])
        shift = half + AFFINE["shift"] * draw[3:] * max(height, width)
        made.append(np.einsum("ij,jhw->ihw", matrix, np.stack([rows, columns])) + shift[:, None, None])
    return _sampled(picture, mask, made)


def elastic(picture: Image, mask: Mask, rng: np.random.Generator, count: int) -> tuple[Frames, Mask]:
    """`count` elastically deformed variants."""
    height, width = picture.shape
    low, high = ELASTIC
    at = [np.linspace(0, GRID - 1, n) for n in (height, width)]
    where = np.stack(np.meshgrid(*at, indexing="ij"))
    base = np.indices(picture.shape, dtype=np.float64)
    made = []
    for _ in range(count):
        deviation = low * (high / low) ** rng.random() * max(height, width)
        coarse = deviation * rng.standard_normal((2, GRID, GRID))
        made.append(base + np.stack([ndimage.map_coordinates(axis, where, order=3, mode="nearest") for axis in coarse]))
    return _sampled(picture, mask, made)


def _sampled(picture: Image, mask: Mask, places: Sequence[npt.NDArray[np.float64]]) -> tuple[Frames, Mask]:
    gray, inside = ndimage.spline_filter(picture.astype(np.float32), mode="mirror"), mask.astype(np.float32)
    pictures, masks = np.empty((2, len(places), *picture.shape), np.float32)
    for k, place in enumerate(places):
        ndimage.map_coordinates(gray, place, output=pictures[k], order=3, mode="mirror", prefilter=False)
        ndimage.map_coordinates(inside, place, output=masks[k], order=1, mode="mirror")
    return pictures.round().clip(0, 255).astype(np.uint8), masks > 0.5


class Pictures:
    """Pictures of each arm, made when they are first asked for and kept in OUT/pictures/ARM."""

    def __init__(self, out: Path, *, side: int, work: int, count: int, clips: int, model: Callable[[], ImageToVideo]):
        self.out, self.side, self.work, self.count, self.clips = out, side, work, count, clips
        self._load, self._model = model, None

    def of(self, still: Still, arm: str) -> tuple[Frames, Mask]:
        """(P, S, S) uint8 and bool, the same P in all arms; the first one is the still."""
        path = self.out / "pictures" / arm / f"{derive_seed(still.name):016x}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                return stored["pictures"], stored["masks"]
        pictures, masks = squared(*self.make(still, arm), self.side)
        content = io.BytesIO()
        np.savez_compressed(content, pictures=pictures, masks=masks)
        write_bytes(path, content.getvalue())
        return pictures, masks

    def make(self, still: Still, arm: str) -> tuple[Frames, Mask]:
        """The pictures and masks at their working size, without keeping them."""
        picture, mask = still.read(self.work)
        others, rng = self.count - 1, numpy_generator("segmentation", arm, still.name)
        if arm == "static":
            more = np.repeat(picture[None], others, 0), np.repeat(mask[None], others, 0)
        elif arm in ("generated", "moved"):
            more = self._generated(still.name, picture, mask)
            if arm == "moved":
                each = [affine(*pair, rng, 1) for pair in zip(*more, strict=True)]
                more = np.concatenate([pictures for pictures, _ in each]), np.concatenate([masks for _, masks in each])
        else:
            more = {"affine": affine, "elastic": elastic}[arm](picture, mask, rng, others)
        return np.concatenate([picture[None], more[0]]), np.concatenate([mask[None], more[1]])

    def _generated(self, name: str, picture: Image, mask: Mask) -> tuple[Frames, Mask]:
        """The same number of frames of each clip, at even distances, the last frame among them."""
        if self._model is None:
            self._model = self._load()
        pictures, masks = [], []
        for number in range(self.clips):
            (clip,) = self._model(picture, mask=mask, seed=derive_seed("segmentation", name, number))
            each = (self.count - 1) // self.clips
            rows = np.linspace(0, len(clip.frames) - 1, each + 1).round().astype(int)[1:]
            assert clip.masks is not None
            pictures.append(clip.frames[rows])
            masks.append(clip.masks[rows])
        return np.concatenate(pictures), np.concatenate(masks)
