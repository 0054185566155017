"""Where the synthetic clips of Table 2 come from: trained generators, and controls that show what a gain is worth.

    cinn, lddm-*   trained on the split's training videos; LDDM is told the still's class
    class-blind    the same LDDM, not told the class (it was hidden now and then in training)
    bundled        the weights that come with the package
    static         the still, repeated
    affine         the still under a random slow affine motion   } as large as the training
    elastic        the still under a random elastic deformation  } videos' block motion
    reconstructed  no stills: windows of the training videos, through LDDM's auto-encoder

All are written as `us-i2v augment` writes clips, so that classifiers check them for leaks by the same manifest.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.augmentation.manifest import write_manifests
from us_i2v.augmentation.outputs import make_folder, write_result
from us_i2v.augmentation.planning import Job, Shard, Source, collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.records import run_record
from us_i2v.augmentation.settings import AugmentSettings, check_settings, pin_settings
from us_i2v.augmentation.synthesis import synthesise
from us_i2v.classifier import TrainedOn, spread_windows
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.mixing import REAL
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, store_clips
from us_i2v.data.transforms import to_gray
from us_i2v.pipeline import GeneratedClip, GenerateOptions
from us_i2v.reproduction.baselines import RandomAffine
from us_i2v.reproduction.elastic import RandomElastic
from us_i2v.reproduction.rows import FITTED_ON
from us_i2v.reproduction.store import row_key
from us_i2v.seeding import derive_seed
from us_i2v.still import resize_longer

if TYPE_CHECKING:
    from collections.abc import Callable

    from us_i2v.data.manifest import Sample
    from us_i2v.data.training_clips import StoredClip
    from us_i2v.pipeline import ImageToVideo
    from us_i2v.reproduction.baselines import Maker
    from us_i2v.reproduction.table2_settings import Table2Settings
    from us_i2v.types import Frames, Image, Mask

    Progress = Callable[[int, int, str], None]

FITTED_PER_CLIP = 4
"""Windows of a training video at most, on average, that controls are fitted on."""
FITTED_SIZE = 128
"""Side of the windows in pixels on which controls are fitted."""


@dataclass(frozen=True)
class Fitted:
    """A control without a network, fitted on training videos.

    Attributes:
        maker: Makes a clip of a gray still.
        fps: Frames a second: the training videos' usual ones.
        identity: Hash of what it is and of what was fitted.
        trained: What it was fitted on.
    """

    maker: Maker
    fps: float
    identity: str
    trained: TrainedOn


class _Repeat:
    """The still, repeated."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, still: Image, seed: int) -> Frames:
        """See `baselines.Maker`."""
        return still[None].repeat(self.length, axis=0)


class _AsGenerator:
    """A maker as an `augmentation.synthesis.Generator`: of gray pictures, without masks."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted

    def __call__(
        self,
        image: Image | str | Path,
        *,
        mask: Mask | None = None,
        seed: int = 0,
        num_clips: int = 1,
        options: GenerateOptions | None = None,
        size: int | None = None,
    ) -> list[GeneratedClip]:
        """See `Generator`; `image` is a picture."""
        picture = np.asarray(image, np.uint8)
        if size is not None:
            picture, _ = resize_longer(picture, None, size)
        gray = to_gray(picture[None])[0]
        made = [self.fitted.maker(gray, seed + k) for k in range(num_clips)]
        flow = np.zeros((1, 2, 1, 1), np.float32)
        return [GeneratedClip(frames, None, self.fitted.fps, seed + k, flow) for k, frames in enumerate(made)]


def fit_control(name: str, videos: Path, cache: Path, frames: int) -> Fitted:
    """Fit "static", "affine" or "elastic" on the training videos of a split.

    Args:
        name: Which one.
        videos: Data folder of the split.
        cache: Folder of decoded clips.
        frames: Length of the clips.

    Raises:
        DataError: No training video is long enough.
    """
    stored, sampler = training_windows(videos, cache, frames)
    maker: Maker = _Repeat(frames)
    shift = 0.0
    if name != "static":
        count = min(FITTED_ON, FITTED_PER_CLIP * len(sampler.clips))
        fitted = RandomAffine.fit(sampler.draw(number, 0).frames for number in range(count))
        shift = fitted.shift
        maker = fitted if name == "affine" else RandomElastic(shift, frames)
    interval = sampler.typical_interval()
    known = tuple(sorted({clip.sha256 for _, clip in stored}))
    trained = TrainedOn(training_groups=tuple(sorted({clip.group for _, clip in stored})), clip_sha256=known)
    return Fitted(maker, 1 / interval, row_key("table2 control", name, frames, interval, shift, known), trained)


def training_windows(videos: Path, cache: Path, frames: int) -> tuple[list[tuple[Sample, StoredClip]], ClipSampler]:
    """Return the training videos of a split as they are stored, and a sampler of their windows, not augmented."""
    train = [sample for sample in find_samples(videos) if sample.split == "train"]
    clips = ClipsConfig(fit="stretch", drop_repeats=False)
    stored = store_clips([(REAL, sample) for sample in train], cache, FITTED_SIZE, clips)
    sampler = ClipSampler(stored, clips, length=frames, seed=0, augment=False)
    return list(zip(train, stored, strict=True)), sampler


def answer_stills(
    maker: ImageToVideo | Fitted,
    stills: Path,
    out: Path,
    settings: Table2Settings,
    *,
    own_label: bool,
    speckle: bool = True,
    progress: Progress,
) -> dict[str, str]:
    """Make the clips of all stills in `out`, going on where a run was stopped.

    Args:
        maker: What makes them.
        stills: Data folder of the stills.
        out: Where clips and manifest go.
        settings: Frames, size, clips a still, seed.
        own_label: Tell the generator each still's class, if it knows it.
        speckle: Whether the generator draws speckle.
        progress: Told about every clip.

    Returns:
        Stills that could not be read, and why.

    Raises:
        ConfigError: The folder holds clips of other settings.
        OutputError: Something cannot be written.
    """
    sources = collect_sources(find_samples(stills), stills)
    jobs = plan_jobs(sources, clips_per_image=settings.clips_per_still, balance=False, seed=settings.seed, ending="mp4")
    known: tuple[str, ...] = ()
    if isinstance(maker, Fitted):
        options = GenerateOptions(frames=settings.frames)
        digest, fps, record = maker.identity, maker.fps, None
    else:
        options = GenerateOptions(frames=settings.frames, speckle=1.0 if speckle else 0.0)
        digest, fps = maker.weights_sha256, 1 / maker.info.frame_interval_s
        known = maker.info.labels if own_label else ()
        record = run_record("augment", maker.info, digest, options, seed=settings.seed, size=settings.size)
    pinned = AugmentSettings(
        clips_per_image=settings.clips_per_still,
        seed=settings.seed,
        size=settings.size,
        own_label=bool(known),
        options=options,
        weights_sha256=digest,
        sources_sha256=sources_sha256(sources),
    )
    generator = _AsGenerator(maker) if isinstance(maker, Fitted) else maker
    outcome = synthesise(generator, jobs, out, pinned, fps=fps, progress=progress, labels=known, record=record)
    return outcome.unreadable


def reconstruct(
    model: ImageToVideo, videos: Path, cache: Path, out: Path, settings: Table2Settings, progress: Progress
) -> None:
    """Pass windows of a split's training videos through the auto-encoder, at their own size and with their labels.

    Each video gives up to `clips_per_still` windows, spread evenly. Frame 0 is the window's own.

    Raises:
        DataError: No training video is long enough.
        ConfigError: The folder holds clips of other settings.
        OutputError: Something cannot be written.
    """
    length, wanted = model.info.autoencoder.n_frames, model.info.frame_interval_s
    stored, sampler = training_windows(videos, cache, length)
    jobs, places = [], []
    for sample, clip in stored:
        if not sampler.strides(clip):
            continue
        name = sample.path.relative_to(videos).as_posix()
        source = Source(name, sample.path, clip.sha256, sample.label, sample.group, None, ())
        for number, (start, stride) in enumerate(spread_windows(sampler, clip, wanted, settings.clips_per_still)):
            output = PurePosixPath(f"{sample.path.stem}_{number}.mp4")
            jobs.append(Job(source, number, derive_seed(settings.seed, clip.sha256, number), output, None))
            places.append((range(start, start + length * stride, stride), 1 / (clip.interval * stride)))
    pinned = AugmentSettings(
        clips_per_image=settings.clips_per_still,
        seed=settings.seed,
        size=settings.size,
        weights_sha256=model.weights_sha256,
        sources_sha256=row_key([(job.source.name, job.source.sha256) for job in jobs]),
    )
    check_settings(out, pinned)
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as folder:
        pin_settings(out, pinned, Path(folder))
        for done, (job, (frames, fps)) in enumerate(zip(jobs, places, strict=True)):
            if not (out / job.output).exists():
                made = _reconstructed(model, open_clip(job.source.path).read(frames), job.seed, fps, settings.size)
                record = run_record(
                    "transfer",
                    model.info,
                    model.weights_sha256,
                    pinned.options,
                    seed=job.seed,
                    size=settings.size,
                    drawn=False,
                    driver_sha256=job.source.sha256,
                )
                write_result(made, out / job.output, exact=False, record=record)
            progress(done + 1, len(jobs), str(job.output))
        common = {
            "weights_sha256": model.weights_sha256,
            "frames": str(length),
            # Videos differ in their rates; each clip's own stands in its file.
            "fps": "",
            "settings_sha256": pinned.sha256(),
        }
        write_manifests(out, jobs, Shard(), {}, common, Path(folder), pinned)


def _reconstructed(model: ImageToVideo, frames: Frames, seed: int, fps: float, size: int | None) -> GeneratedClip:
    latent = model.encode(frames)
    options = GenerateOptions(frames=len(frames), fps=min(fps, 200.0))
    return model.animate(frames[0], latent, seed=seed, options=options, size=size)
