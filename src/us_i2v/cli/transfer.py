"""`us-i2v transfer`: the motion of one clip on the anatomy of other stills.

The driving clip's latent is the posterior's mean of its window; the second stage of the weights is not asked, so
LDDM and cINN weights serve alike. Inputs are checked before the model is loaded, as by `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from us_i2v.cli import options as opt
from us_i2v.cli.generate import check_latent_output, write_latent
from us_i2v.cli.requests import check_outputs, plan_requests, read_inputs
from us_i2v.errors import ConfigError, InputError

if TYPE_CHECKING:
    import torch

    from us_i2v.data.clips import ClipReader
    from us_i2v.pipeline import ImageToVideo


@dataclass(frozen=True)
class Driver:
    """The frames of a clip that drive.

    Attributes:
        indices: Frames of the file, rising.
        fps: Their mean rate.
    """

    indices: tuple[int, ...]
    fps: float


def command(
    driver: Annotated[Path, typer.Argument(metavar="DRIVER", help="The clip whose motion is taken.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Stills: PNG, JPEG, TIFF, BMP or GIF.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="One still: a file (.mp4 .mkv .avi .gif .npz) or, without an ending, a folder of PNG frames. "
            "Several: a folder.",
        ),
    ],
    start: Annotated[int, typer.Option("--start", min=0, help="First frame of the driver that is used.")] = 0,
    stride: Annotated[
        int | None, typer.Option("--stride", min=1, help="Take every N-th frame of the driver. [default: by time]")
    ] = None,
    dt: Annotated[
        float | None,
        typer.Option("--dt", metavar="MS", help="Milliseconds between frames. [default: the weights' typical]"),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            help="Segmentation mask, moved along and written beside the clip. One still: several are united. "
            "Several stills: one each, in order.",
        ),
    ] = None,
    ext: Annotated[
        str, typer.Option("--ext", help="Format in a folder of clips: mp4, mkv, avi, gif, npz or png.")
    ] = "mp4",
    preview: Annotated[
        Path | None,
        typer.Option("--preview", metavar="STRIP.png", help="Also write a strip of 8 frames of the first clip."),
    ] = None,
    save_latent: Annotated[
        Path | None,
        typer.Option("--save-latent", metavar="FILE.safetensors", help="Keep the motion, for `generate --latent`."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn speckle.")] = 0,
    weights: opt.Weights = None,
    frames: opt.Frames = None,
    motion: opt.Motion = None,
    speckle: opt.Speckle = None,
    size: opt.OutputSize = "native",
    texture: opt.Texture = None,
    exact: opt.Exact = False,
    stamp: opt.Stamp = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    precision: opt.NetworkPrecision = "fp32",
) -> None:
    """Let stills move as another clip does; frame 0 is the still itself.

    Example: us-i2v transfer driver.mp4 still.png -o clip.mp4
    """
    from us_i2v.augmentation.outputs import make_folder, write_result
    from us_i2v.augmentation.records import run_record
    from us_i2v.cli.preview import write_strip
    from us_i2v.data.clips import open_clip
    from us_i2v.data.embedding import file_sha256
    from us_i2v.pipeline import CPU_THREADS, ImageToVideo

    out_size, computed_in = opt.parse_size(size), opt.parse_precision(precision)
    options = opt.generate_options(frames=frames, motion=motion, speckle=speckle, texture=texture)
    check_spacing(stride, dt)
    requests = plan_requests(images, mask or [], output, seed, 1, ext)
    check_outputs([request.output for request in requests], [driver, *images], preview)
    if save_latent is not None:
        check_latent_output(save_latent, [driver, *images, *(mask or [])])
    reader = open_clip(driver)
    for request in requests:
        read_inputs(request)
    generator = ImageToVideo.from_pretrained(weights, device, threads or CPU_THREADS, precision=computed_in)
    chosen = choose_frames(reader, generator, start, stride, dt, options.frames)
    latents = encode(reader, generator, chosen)
    options = options.model_copy(update={"fps": chosen.fps})
    if save_latent is not None:
        write_latent(save_latent, latents, generator, frames=options.frames, fps=chosen.fps)
    made = run_record(
        "transfer",
        generator.info,
        generator.weights_sha256,
        options,
        seed=seed,
        size=out_size,
        drawn=False,
        driver_sha256=reader.source_hash(),
        stamp=opt.stamp_text(stamp),
        precision=computed_in,
    )
    for request in requests:
        still, still_mask = read_inputs(request)
        clip = generator.animate(still, latents, seed=seed, mask=still_mask, options=options, size=out_size)
        make_folder(request.output.parent)
        record = made.model_copy(update={"still_sha256": file_sha256(request.image)})
        write_result(clip, request.output, exact=exact, record=record)
        if preview is not None and request is requests[0]:
            make_folder(preview.parent)
            write_strip(preview, clip.frames, clip.masks)
        n, height, width = clip.frames.shape[:3]
        typer.echo(
            f"{request.output}: {n} frames, {width}x{height}, {clip.fps:.4g} fps, driven by frames "
            f"{chosen.indices[0]} to {chosen.indices[-1]} of '{driver}', "
            f"weights {generator.info.kind} {generator.weights_sha256[:12]}"
        )


def check_spacing(stride: int | None, dt: float | None) -> None:
    """Raise `ConfigError` if both ways to choose frames are given, or the time is none."""
    if stride is not None and dt is not None:
        raise ConfigError("Both --dt and --stride were given; one of them can choose the frames.", "Drop one.")
    if dt is not None and not 0 < dt < float("inf"):
        raise ConfigError(f"Time between frames {dt:g} ms is not a positive number.", "Write for example --dt 60.")


def choose_frames(
    reader: ClipReader, generator: ImageToVideo, start: int, stride: int | None, dt: float | None, frames: int
) -> Driver:
    """Choose the driver's frames as training does: repeats are passed over, then every N-th frame is taken.

    Args:
        reader: The driver.
        generator: Says how long a segment is, and which spacing is typical.
        start: First frame of the file.
        stride: Every N-th frame; None goes by time.
        dt: Milliseconds between frames; None takes the weights' typical time.
        frames: Frames of the clip to be made.

    Raises:
        InputError: The driver is too short.
    """
    from us_i2v.data.repeats import distinct_frames

    distinct = distinct_frames(reader)
    kept = [index for index in distinct.indices if index >= start]
    wanted = dt / 1000 if dt is not None else generator.info.frame_interval_s
    step = stride if stride is not None else max(1, round(wanted * distinct.fps))
    length = generator.segments(frames) * (generator.info.autoencoder.n_frames - 1) + 1
    span = (length - 1) * step + 1
    if len(kept) < span:
        raise InputError(
            f"Driver '{reader.path}' has {len(kept)} different frames from frame {start} on; "
            f"{length} frames at a stride of {step} need {span}.",
            "Lower --start, --stride, --dt or --frames, or take a longer clip.",
        )
    return Driver(tuple(kept[:span:step]), distinct.fps / step)


def encode(reader: ClipReader, generator: ImageToVideo, driver: Driver) -> torch.Tensor:
    """Encode the driver's frames: (K, C_z, T_z, H_z, W_z), one latent a segment; segments share their end frames."""
    import torch

    length = generator.info.autoencoder.n_frames
    firsts = range(0, len(driver.indices) - 1, length - 1)
    return torch.stack(
        [generator.encode(reader.read(driver.indices[first : first + length]), driver.fps) for first in firsts]
    )
