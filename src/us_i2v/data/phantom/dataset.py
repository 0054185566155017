"""Writes a data set of phantoms: videos as breast videos lie on disk, stills as BUSI's do, and a manifest.

    OUT/phantom.json                              settings, so that another run goes on with the same ones
    OUT/videos/{benign,malignant}/benign_0001.mp4   and benign_0001_mask.png, the lesion in the first frame
    OUT/images/{benign,malignant,normal}/benign (1).png   and benign (1)_mask.png
    OUT/manifest.csv

Every phantom is a breast of its own, hence a group of its own. Files appear whole or not at all; running
again skips what is there, and asking for more adds to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from us_i2v.data.atomic import write_bytes
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.masks import write_mask
from us_i2v.data.phantom.config import Label, PhantomConfig
from us_i2v.data.phantom.simulate import simulate
from us_i2v.data.splits import split_by_group
from us_i2v.data.writers import write_clip, write_still
from us_i2v.errors import ConfigError, OutputError
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMAT = 1
_SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}
_GROUPS_TO_SPLIT = 12  # fewer are left undivided
_VIDEO_LABELS: tuple[Label, ...] = ("benign", "malignant")


@dataclass(frozen=True)
class _Job:
    """One phantom to write: its file relative to the data set, its class and its seed."""

    file: Path
    kind: str
    label: Label
    seed: int

    @property
    def mask(self) -> Path:
        return self.file.with_name(f"{self.file.stem}_mask.png")


def write_phantom(
    out: Path,
    *,
    videos_per_class: int,
    stills_per_class: int,
    size: int,
    seed: int,
    motion_only: bool = False,
    n_frames: int = 32,
    fps: float = 20.0,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Sample]:
    """Write a data set of phantoms.

    Args:
        out: New folder, or one that this function wrote with the same settings.
        videos_per_class: Videos of each of benign and malignant.
        stills_per_class: Stills of each of benign, malignant and normal.
        size: Side of the pictures in pixels, 16 .. 2048.
        seed: The same seed and settings give the same files; more of them do not change the first ones.
        motion_only: Let the classes differ in stiffness, hence in motion, but not in looks.
        n_frames: Frames a video.
        fps: Frames a second.
        progress: Called with (done, total, name of the file just finished).

    Returns:
        The samples of the manifest.

    Raises:
        ConfigError: A count or the size is out of range.
        OutputError: The folder holds something else, was written with other settings, or cannot be written.
    """
    if min(videos_per_class, stills_per_class) < 0 or videos_per_class + stills_per_class == 0:
        raise ConfigError(
            f"{videos_per_class} videos and {stills_per_class} stills a class were asked for; none may be "
            "negative and one must be positive.",
            "Ask for at least one video or still.",
        )
    settings: dict[str, object] = {
        "size": size,
        "seed": seed,
        "motion_only": motion_only,
        "n_frames": n_frames,
        "fps": fps,
    }
    jobs = _jobs(videos_per_class, stills_per_class, seed)
    config = PhantomConfig.parse(
        {"size": (size, size), "motion_only": motion_only, "n_frames": n_frames, "fps": fps}, "phantom"
    )
    _claim(out, settings)
    for done, job in enumerate(jobs):
        if not ((out / job.file).exists() and (out / job.mask).exists()):
            _write(out, job, config)
        if progress is not None:
            progress(done + 1, len(jobs), job.file.name)
    samples = _samples(out, jobs, fps, seed)
    write_manifest(out / "manifest.csv", samples)
    return samples


def _jobs(videos: int, stills: int, seed: int) -> list[_Job]:
    jobs = []
    for label in _VIDEO_LABELS:
        for number in range(1, videos + 1):
            file = Path("videos", label, f"{label}_{number:04d}.mp4")
            jobs.append(_Job(file, "clip", label, derive_seed(seed, "video", label, number)))
    for label in get_args(Label):
        for number in range(1, stills + 1):
            file = Path("images", label, f"{label} ({number}).png")
            jobs.append(_Job(file, "still", label, derive_seed(seed, "still", label, number)))
    return jobs


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Check that the folder is new or ours, and record the settings."""
    record = out / "phantom.json"
    wanted = {"format": _FORMAT} | settings
    if record.exists():
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise OutputError(f"'{record}' is not readable: {error}.", "Choose a new folder.") from error
        if found != wanted:
            differing = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
            raise OutputError(
                f"'{out}' was written with other settings ({', '.join(differing) or 'unknown ones'}).",
                "Choose a new folder, or the same settings to go on.",
            )
        return
    if out.is_file():
        raise OutputError(f"'{out}' is a file; a folder is needed.", "Choose another name.")
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"Folder '{out}' holds other files.", "Choose a new or empty folder.")
    write_bytes(record, (json.dumps(wanted, indent=2, sort_keys=True) + "\n").encode())


def _write(out: Path, job: _Job, config: PhantomConfig) -> None:
    """Simulate one phantom and write it, the mask first, so that a picture never stands without one."""
    n_frames = config.n_frames if job.kind == "clip" else 1
    clip = simulate(config.model_copy(update={"label": job.label, "n_frames": n_frames}), job.seed)
    write_mask(out / job.mask, clip.masks[0])
    if job.kind == "clip":
        write_clip(out / job.file, clip.frames, config.fps)
    else:
        write_still(out / job.file, clip.frames[0])


def _samples(out: Path, jobs: list[_Job], fps: float, seed: int) -> list[Sample]:
    groups = [f"phantom-{job.file.stem}-{job.kind}".replace(" ", "-") for job in jobs]
    splits: list[str | None] = [None] * len(jobs)
    if len(jobs) >= _GROUPS_TO_SPLIT:
        items = [(f"{job.label} {job.kind}", group) for job, group in zip(jobs, groups, strict=True)]
        splits = [*split_by_group(items, _SPLITS, seed)]
    return [
        Sample(
            path=out / job.file,
            kind="clip" if job.kind == "clip" else "still",
            label=job.label,
            group=group,
            split=split,
            masks=(out / job.mask,),
            fps=fps if job.kind == "clip" else None,
        )
        for job, group, split in zip(jobs, groups, splits, strict=True)
    ]
