"""What `generate` and `transfer` are asked for: which clip of which still goes where, and whether that can be.

A request is one clip. Clips of a still take the seeds SEED, SEED + 1, ..., or those on the way to another seed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from us_i2v.cli import dicom_options as dcm
from us_i2v.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from us_i2v.data.dicom.detect import Regions
    from us_i2v.seeding import Seed
    from us_i2v.types import Image, Mask


@dataclass(frozen=True)
class Request:
    """One clip to make: from which still and masks, with which seed, and where to."""

    image: Path
    masks: tuple[Path, ...]
    seed: Seed
    output: Path


def seed_value(seed: Seed) -> int | str:
    """Return a seed as records have it: the number, or between which ones."""
    if isinstance(seed, int):
        return seed
    # Either end of the way is that seed's own clip.
    return seed.first if seed.share == 0 else seed.second if seed.share == 1 else seed_text(seed)


def seed_text(seed: Seed) -> str:
    """Say a seed: "3", or "3 to 9 at 0.25"."""
    return str(seed) if isinstance(seed, int) else f"{seed.first} to {seed.second} at {seed.share:.3g}"


def plan_requests(
    images: list[Path],
    masks: list[Path],
    output: Path,
    seed: int,
    num_clips: int,
    ext: str,
    interpolate: int | None = None,
) -> list[Request]:
    """Say which clip goes where: one to `output` itself, several into the folder `output`.

    The seeds are `seed`, `seed` + 1, ..., or lead to the seed `interpolate`.

    Raises:
        ConfigError: `output` is a file though there are several clips, masks and stills do not pair up, or
            two stills would be written to one file.
    """
    from us_i2v.seeding import blends

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
    seeds: Sequence[Seed] = [seed + k for k in range(num_clips)]
    names = [f"_seed{own}" for own in seeds]
    if interpolate is not None:
        seeds = blends(seed, interpolate, num_clips)
        names = [f"_seed{seed}to{interpolate}_{k:0{len(str(num_clips - 1))}}" for k in range(num_clips)]
    return [
        Request(image, own_masks, own, output / dcm.clip_name(image.stem + (name if num_clips > 1 else ""), ext))
        for image, own_masks in pairs
        for own, name in zip(seeds, names, strict=True)
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


def check_inputs(request: Request, regions: Regions, keep_text: bool) -> None:
    """Read a request's still and masks; raises `InputError`, for DICOM clips also if the still has burned-in text."""
    from us_i2v.data.dicom.output import refuse_text

    still, _ = read_inputs(request, regions)
    if dcm.is_dicom_output(request.output) and not keep_text:
        refuse_text(still, str(request.image))


def read_inputs(request: Request, regions: Regions = "keep") -> tuple[Image, Mask | None]:
    """Read a request's still and masks; raises `InputError`."""
    from us_i2v.data.masks import read_masks

    still = dcm.read_region(request.image, regions)
    if not request.masks:
        return still, None
    return still, read_masks(request.masks, (still.shape[0], still.shape[1]))
