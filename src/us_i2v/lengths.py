"""How a clip of some length is made: in one window, stitched out of windows, or segment by segment.

    window      16 frames, one latent
    stitch      windows that overlap by half, denoised together as one long latent; can close a loop
    reseed      segments of 15 further frames, each with a latent of its own, drawn given the last frame

Stitching needs a second stage that denoises, and a latent with two frames or more in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from us_i2v.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.options import GenerateOptions
    from us_i2v.weights import Header

Longer = Literal["stitch", "reseed"]
"""Ways of making clips that are longer than the model's."""


def is_stitched(header: Header, options: GenerateOptions) -> bool:
    """Tell whether a clip that is drawn is stitched.

    Raises:
        ConfigError: Stitching or a loop is asked for and these weights cannot, or see `check_loop`.
    """
    able = header.kind == "lddm" and header.autoencoder.latent_shape[1] % 2 == 0
    if not able and (options.loop or options.longer == "stitch"):
        asked = "loop" if options.loop else "longer"
        raise ConfigError(
            f"Option '{asked}' = {getattr(options, asked)} was given; stitching needs a denoised latent of two frames "
            f"or more, and these weights ({header.kind}) have none.",
            f"Leave --{asked} out.",
        )
    if options.loop and options.longer == "reseed":
        raise ConfigError("A loop is stitched; option 'longer' = reseed cannot close it.", "Leave one of both out.")
    check_loop(header, options)
    return options.loop or (able and options.frames > header.autoencoder.n_frames and options.longer != "reseed")


def check_loop(header: Header, options: GenerateOptions) -> None:
    """Raise `ConfigError` if a loop is asked for that is no whole number of half windows."""
    least = header.autoencoder.n_frames
    if options.loop and (options.frames % (least // 2) or options.frames < least):
        fitting = max(least, least // 2 * round(2 * options.frames / least))
        raise ConfigError(
            f"A loop of {options.frames} frames was asked for; it is made of {least // 2} at a time, {least} at least.",
            f"Use --frames {fitting}.",
        )


def halves(header: Header, frames: int) -> int:
    """Count the half windows that a stitched clip of so many frames takes."""
    return max(2, -(-2 * frames // header.autoencoder.n_frames))


def segments(header: Header, frames: int) -> int:
    """Count the segments of a clip of so many frames; each one after the first adds 15."""
    return max(1, -(-(frames - 1) // (header.autoencoder.n_frames - 1)))


def check_latents(header: Header, latents: Tensor, options: GenerateOptions) -> bool:
    """Tell whether latents that are given are to be stitched: one long latent (1, C_z, L, H_z, W_z).

    Raises:
        InputError: They are of another shape, or of too few frames for the clip.
        ConfigError: See `check_loop`.
    """
    channels, window, *place = header.autoencoder.latent_shape
    shape, half = tuple(latents.shape), window // 2
    fits = len(shape) == 5 and shape[0] >= 1 and (shape[1], *shape[3:]) == (channels, *place)
    long = fits and window % 2 == 0 and shape[0] == 1 and shape[2] > window and shape[2] % half == 0
    if not fits or (shape[2] != window and not long):
        raise InputError(
            f"The latent is of shape {shape}; these weights need (K, {channels}, {window}, "
            f"{', '.join(map(str, place))}), or (1, {channels}, L, ...) of a stitched clip.",
            "Encode it with the same weights.",
        )
    check_loop(header, options)
    if not long and not options.loop:
        needs = segments(header, options.frames)
        if needs > len(latents):
            raise InputError(
                f"{options.frames} frames need {needs} latents; {len(latents)} were given.", "Ask for fewer frames."
            )
        return False
    if window % 2:
        raise InputError("A latent of one frame in time cannot close a loop.", "Leave --loop out.")
    needs, has = halves(header, options.frames) * half, shape[2]
    if shape[0] > 1 or has < needs or (options.loop and has != needs):
        raise InputError(
            f"{options.frames} frames need a stitched latent of {needs} frames; {len(latents)} of {has} were given.",
            "Ask for as many frames as it was made with.",
        )
    return True
