"""`us-i2v generate`: clips from stills.

Everything that can be checked is checked before the model is loaded: the stills and masks are read, and the
outputs are probed. Clips are made one at a time, so memory does not grow with their number, and clip k of a
still is the clip of seed + k alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from us_i2v.cli import options as opt
from us_i2v.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from us_i2v.types import Image, Mask


@dataclass(frozen=True)
class Request:
    """One clip to make: from which still and masks, with which seed, and where to."""

    image: Path
    masks: tuple[Path, ...]
    seed: int
    output: Path


def command(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Stills: PNG, JPEG, TIFF, BMP or GIF.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="One clip: a file (.mp4 .mkv .avi .gif .npz) or, without an ending, a folder of PNG frames. "
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
        str, typer.Option("--ext", help="Format in a folder of clips: mp4, mkv, avi, gif, npz or png.")
    ] = "mp4",
    preview: Annotated[
        Path | None,
        typer.Option("--preview", metavar="STRIP.png", help="Also write a strip of 8 frames of the first clip."),
    ] = None,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    frames: opt.Frames = None,
    fps: opt.Fps = None,
    motion: opt.Motion = None,
    speckle: opt.Speckle = None,
    size: opt.OutputSize = "native",
    steps: opt.Steps = None,
    sampler: opt.Sampler = None,
    label: opt.Label = None,
    guidance: opt.Guidance = None,
    texture: opt.Texture = None,
    exact: opt.Exact = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
) -> None:
    """Make ultrasound clips from stills; frame 0 is the still itself.

    Example: us-i2v generate still.png -o clip.mp4
    """
    from us_i2v.augmentation.outputs import make_folder, write_result
    from us_i2v.cli.preview import write_strip
    from us_i2v.pipeline import CPU_THREADS, ImageToVideo

    out_size = opt.parse_size(size)
    requests = plan_requests(images, mask or [], output, seed, num_clips, ext)
    check_outputs([request.output for request in requests], images, preview)
    for request in requests[::num_clips]:
        read_inputs(request)
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
    )
    generator = ImageToVideo.from_pretrained(weights, device, threads or CPU_THREADS)
    for request in requests:
        still, still_mask = read_inputs(request)
        (clip,) = generator(still, mask=still_mask, seed=request.seed, num_clips=1, options=options, size=out_size)
        make_folder(request.output.parent)
        write_result(clip, request.output, exact=exact)
        if preview is not None and request is requests[0]:
            make_folder(preview.parent)
            write_strip(preview, clip.frames, clip.masks)
        n, height, width = clip.frames.shape[:3]
        typer.echo(
            f"{request.output}: {n} frames, {width}x{height}, {clip.fps:.4g} fps, seed {request.seed}, "
            f"weights {generator.info.kind} {generator.weights_sha256[:12]}"
        )


def plan_requests(
    images: list[Path], masks: list[Path], output: Path, seed: int, num_clips: int, ext: str
) -> list[Request]:
    """Say which clip goes where: one to `output` itself, several into the folder `output`.

    Raises:
        ConfigError: `output` is a file though there are several clips, masks and stills do not pair up, or
            two stills would be written to one file.
    """
    from us_i2v.augmentation.outputs import clip_name

    if len(images) > 1 and masks and len(masks) != len(images):
        raise ConfigError(
            f"{len(masks)} masks were given for {len(images)} stills; one each, in order, is needed.",
            "Give as many --mask as stills, or none.",
        )
    pairs = [(images[0], tuple(masks))] if len(images) == 1 else list(_pair(images, masks))
    if len(images) * num_clips == 1:
        return [Request(images[0], pairs[0][1], seed, output)]
    if output.suffix:
        raise ConfigError(
            f"Output '{output}' is a file, but {len(images) * num_clips} clips are asked for.",
            "Give a folder: -o clips --ext mp4.",
        )
    stem, count = Counter(image.stem for image in images).most_common(1)[0]
    if count > 1:
        first, second = [image for image in images if image.stem == stem][:2]
        raise ConfigError(
            f"Stills '{first}' and '{second}' would both be written to '{stem}.{ext}'.",
            "Generate them in two runs.",
        )
    return [
        Request(
            image,
            own_masks,
            seed + k,
            output / clip_name(f"{image.stem}_seed{seed + k}" if num_clips > 1 else image.stem, ext),
        )
        for image, own_masks in pairs
        for k in range(num_clips)
    ]


def _pair(images: list[Path], masks: list[Path]) -> list[tuple[Path, tuple[Path, ...]]]:
    if not masks:
        return [(image, ()) for image in images]
    return [(image, (mask,)) for image, mask in zip(images, masks, strict=True)]


def check_outputs(outputs: list[Path], inputs: list[Path], preview: Path | None) -> None:
    """Raise an error unless every output can be written and none is one of the inputs."""
    from us_i2v.augmentation.outputs import check_folder_writable, check_writable, mask_path

    read = {path.resolve() for path in inputs}
    for path in outputs:
        check_writable(path)
        if {path.resolve(), mask_path(path).resolve()} & read:
            raise OutputError(f"Output '{path}' would overwrite a file that is read.", "Choose another name.")
    if preview is not None:
        if preview.suffix.lower() != ".png":
            raise ConfigError(f"Preview '{preview}' does not end in .png.", "Choose another name.")
        if preview.resolve() in read:
            raise OutputError(f"Preview '{preview}' would overwrite a file that is read.", "Choose another name.")
        if preview.is_dir():
            raise OutputError(f"Preview '{preview}' is a folder.", "Choose another name.")
        check_folder_writable(preview.parent)


def read_inputs(request: Request) -> tuple[Image, Mask | None]:
    """Read a request's still and masks; raises `InputError`."""
    from us_i2v.data.masks import read_masks
    from us_i2v.data.stills import read_still

    still = read_still(request.image)
    if not request.masks:
        return still, None
    return still, read_masks(request.masks, (still.shape[0], still.shape[1]))
