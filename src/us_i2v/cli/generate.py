"""`us-i2v generate`: clips from stills.

Everything that can be checked is checked before the model is loaded: the stills and masks are read, and the
outputs are probed. Clips are made one at a time, so memory does not grow with their number, and clip k of a
still is the clip of seed + k alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from us_i2v.cli import dicom_options as dcm
from us_i2v.cli import options as opt
from us_i2v.cli.requests import check_inputs, check_outputs, plan_requests, read_inputs, seed_text, seed_value
from us_i2v.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from us_i2v.pipeline import GeneratedClip, GenerateOptions, ImageToVideo
    from us_i2v.seeding import Seed
    from us_i2v.types import Image, Mask

    MakeClip = Callable[[Image, Mask | None, Seed, int | None], GeneratedClip]
    """(still, mask, seed, size of the longer side) -> clip."""


def command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Stills: PNG, JPEG, TIFF, BMP, GIF or DICOM.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="One clip: a file (.mp4 .mkv .avi .gif .npz .dcm) or, without an ending, a folder of PNG frames. "
            "Several: a folder.",
        ),
    ],
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            help="Segmentation mask, moved along and written beside the clip. One still: several are united. "
            "Several stills: one each, in order.",
        ),
    ] = None,
    num_clips: Annotated[
        int, typer.Option("--num-clips", min=1, help="Clips a still, with seeds SEED, SEED+1, ...")
    ] = 1,
    ext: Annotated[
        str, typer.Option("--ext", help="Format in a folder of clips: mp4, mkv, avi, gif, npz, png or dcm.")
    ] = "mp4",
    preview: Annotated[
        Path | None,
        typer.Option("--preview", metavar="STRIP.png", help="Also write a strip of 8 frames of the first clip."),
    ] = None,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    frames: opt.Frames = None,
    loop: opt.Loop = None,
    longer: opt.Longer = None,
    fps: opt.Fps = None,
    motion: opt.Motion = None,
    speckle: opt.Speckle = None,
    size: opt.OutputSize = "native",
    steps: opt.Steps = None,
    sampler: opt.Sampler = None,
    label: opt.Label = None,
    guidance: opt.Guidance = None,
    strength: opt.Strength = None,
    pressure: opt.Pressure = None,
    slide: opt.Slide = None,
    prompt: opt.Prompt = None,
    interpolate: Annotated[
        int | None,
        typer.Option("--interpolate", metavar="SEED2", min=0, help="Make the clips on the way from SEED to SEED2."),
    ] = None,
    latent: Annotated[
        Path | None,
        typer.Option("--latent", metavar="FILE", help="Take the motion that --save-latent kept; --seed draws speckle."),
    ] = None,
    save_latent: Annotated[
        Path | None,
        typer.Option("--save-latent", metavar="FILE.safetensors", help="Keep the motion of the first clip."),
    ] = None,
    texture: opt.Texture = None,
    region: dcm.Region = "keep",
    mark: dcm.Mark = True,
    keep_text: dcm.KeepText = False,
    exact: opt.Exact = False,
    stamp: opt.Stamp = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    precision: opt.NetworkPrecision = "fp32",
) -> None:
    """Make ultrasound clips from stills; frame 0 is the still itself.

    Example: us-i2v generate still.png -o clip.mp4
    """
    from us_i2v.augmentation.outputs import make_folder, write_result
    from us_i2v.augmentation.records import run_record
    from us_i2v.cli.preview import write_strip
    from us_i2v.data.embedding import file_sha256
    from us_i2v.pipeline import CPU_THREADS, ImageToVideo

    out_size, computed_in = opt.parse_size(size), opt.parse_precision(precision)
    check_sources(latent, save_latent, interpolate, num_clips, prompt)
    requests = plan_requests(images, mask or [], output, seed, num_clips, ext, interpolate)
    check_outputs([request.output for request in requests], [*images, *([latent] if latent else [])], preview)
    if save_latent is not None:
        check_latent_output(save_latent, [*images, *(mask or [])])
    regions = dcm.parse_region(region)
    for request in requests[::num_clips]:
        check_inputs(request, regions, keep_text)
    options = opt.generate_options(
        frames=frames,
        steps=steps,
        sampler=sampler,
        motion=motion,
        speckle=speckle,
        label=label,
        guidance=guidance,
        fps=fps,
        texture=texture,
        loop=loop,
        longer=longer,
        strength=strength,
        pressure=pressure,
        slide=slide,
    )
    generator = ImageToVideo.from_pretrained(weights, device, threads or CPU_THREADS, precision=computed_in)
    if prompt is not None:
        options = generator.prompted(prompt, options)
    make = drawn_clips(generator, options) if latent is None else driven_clips(generator, options, latent)
    record = run_record(
        "generate",
        generator.info,
        generator.weights_sha256,
        options,
        size=out_size,
        drawn=latent is None,
        latent_sha256=None if latent is None else file_sha256(latent),
        stamp=opt.stamp_text(stamp),
        precision=computed_in,
    )
    for request in requests:
        still, still_mask = read_inputs(request, regions)
        clip = make(still, still_mask, request.seed, out_size)
        make_folder(request.output.parent)
        made = f"seed {seed_text(request.seed)}, weights {generator.info.kind} {generator.weights_sha256}"
        dicom = dcm.dicom_output(request.output, request.image, still, clip, regions, mark, keep_text, made)
        whence = {"still_sha256": file_sha256(request.image), "seed": seed_value(request.seed)}
        write_result(clip, request.output, exact=exact, dicom=dicom, record=record.model_copy(update=whence))
        if preview is not None and request is requests[0]:
            make_folder(preview.parent)
            write_strip(preview, clip.frames, clip.masks)
        if save_latent is not None and request is requests[0] and clip.latent is not None:
            make_folder(save_latent.parent)
            loop, count = options.loop, len(clip.frames)
            write_latent(save_latent, clip.latent, generator, frames=count, fps=clip.fps, loop=loop, seed=seed)
        n, height, width = clip.frames.shape[:3]
        typer.echo(
            f"{request.output}: {n} frames, {width}x{height}, {clip.fps:.4g} fps, seed {seed_text(request.seed)}, "
            f"weights {generator.info.kind} {generator.weights_sha256[:12]}"
        )


def drawn_clips(generator: ImageToVideo, options: GenerateOptions) -> MakeClip:
    """Clips whose motion the seed draws."""

    def make(still: Image, mask: Mask | None, seed: Seed, size: int | None) -> GeneratedClip:
        return generator(still, mask=mask, seed=seed, num_clips=1, options=options, size=size)[0]

    return make


def driven_clips(generator: ImageToVideo, options: GenerateOptions, path: Path) -> MakeClip:
    """Clips with the motion of a latent file; length, rate and loop are that file's unless given.

    Raises:
        InputError: The file does not fit the weights.
        ConfigError: An option is given that draws a latent.
    """
    from us_i2v.latents_file import load_latent

    shape = generator.info.autoencoder.latent_shape
    saved = load_latent(path, space=generator.latent_space, shape=shape)
    header = saved.header
    kept = {"frames": header.frames, "fps": header.fps, "loop": header.loop}
    options = options.model_copy(update={k: v for k, v in kept.items() if k not in options.model_fields_set})

    def make(still: Image, mask: Mask | None, seed: Seed, size: int | None) -> GeneratedClip:
        return generator.animate(still, saved.latent, seed=seed, mask=mask, options=options, size=size)

    return make


def check_sources(
    latent: Path | None, save_latent: Path | None, interpolate: int | None, num_clips: int, prompt: str | None
) -> None:
    """Raise `ConfigError` for ways to choose the motion that exclude each other."""
    if latent is not None:
        others = {"interpolate": interpolate, "save-latent": save_latent, "prompt": prompt}
        for name, value in others.items():
            if value is not None:
                raise ConfigError(
                    f"Option '{name}' = {value} was given; the motion is that of '{latent}'.", f"Leave --{name} out."
                )
    if interpolate is not None and num_clips < 2:
        raise ConfigError(
            f"{num_clips} clip was asked for on the way to seed {interpolate}; it takes 2 or more.",
            "Add --num-clips 5.",
        )


def check_latent_output(path: Path, inputs: list[Path]) -> None:
    """Raise an error unless a latent can be kept at `path`, and that is none of the inputs."""
    from us_i2v.data.atomic import check_writable

    if path.suffix != ".safetensors":
        raise ConfigError(f"Latent '{path}' does not end in .safetensors.", "Choose another name.")
    if path.resolve() in {other.resolve() for other in inputs}:
        raise OutputError(f"Latent '{path}' would overwrite a file that is read.", "Choose another name.")
    check_writable(path)


def write_latent(
    path: Path,
    latent: torch.Tensor,
    generator: ImageToVideo,
    *,
    frames: int,
    fps: float,
    loop: bool = False,
    seed: int | None = None,
) -> None:
    """Write a latent of these weights, see `latents_file.save_latent`."""
    from us_i2v.latents_file import save_latent

    space, sha256 = generator.latent_space, generator.weights_sha256
    save_latent(path, latent, space=space, weights_sha256=sha256, frames=frames, fps=fps, loop=loop, seed=seed)
