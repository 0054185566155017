"""Bring a real still to life: its own speckle moved by simulated pressure, slide and drift.

Owns the training clips that are made from stills. Three parts, drawn first (`draw_motion`) and then applied
(`apply_motion`), so that a draw can be recorded and replayed:

1. Tissue. A random layered stiffness map; a lesion mask adds a modulus drawn log-uniformly, independently of
   any class label (none is taken), so that motion never tells the diagnosis.
2. Motion. Five load cases of the elastic problem (`probe_motion`) with smooth random time courses that start
   at zero; the forward displacement u is inverted to the backward flow b by b(x) = -u(x + b(x)). The
   picture's frame is the probe's: its upper edge stays where it is.
3. Speckle. The still's texture decorrelates (`still_texture`) by D, the slice's out-of-plane drift in
   correlation lengths plus a multiple of the local strain, and is moved along: frame_t =
   warp(texture_path(still, D_t), b_t).

Frame 0 is the still, exactly. Left to others: which pixels hold still (`hold`), resizing, and labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from us_i2v.config import Config
from us_i2v.data.elasticity import at_centres
from us_i2v.data.probe_motion import (
    MODES,
    draw_shares,
    draw_waves,
    invert_displacement,
    load_cases,
    time_courses,
    upsampling_matrix,
)
from us_i2v.data.still_texture import texture_path
from us_i2v.errors import ConfigError, InputError
from us_i2v.types import FloatArray, Mask

_Float32 = npt.NDArray[np.float32]

_CELLS = 40  # elastic cells along the picture's longer side


class StillMotionConfig(Config):
    """Ranges from which `draw_motion` draws; pairs are (low, high)."""

    displacement: tuple[float, float] = Field(
        (0.005, 0.1),
        description="Peak displacement of the leading load case over 1.5 s, share of the height.",
    )
    quiet_share: float = Field(0.12, ge=0, le=1, description="Share of clips that hardly move (a tenth of it).")
    lesion_stiffness: tuple[float, float] = Field(
        (0.5, 10.0),
        description="Young's modulus of a lesion over its surroundings; log-uniform, whatever the class.",
    )
    drift_rate: tuple[float, float] = Field(
        (0.1, 2.0), description="Out-of-plane drift, correlation lengths over 1.5 s; log-uniform."
    )
    still_share: float = Field(0.2, ge=0, le=1, description="Share of clips with hardly any drift.")
    strain_drift: tuple[float, float] = Field(
        (5.0, 15.0), description="Correlation lengths of drift that a strain of 1 is worth."
    )
    noise: tuple[float, float] = Field((0.0, 0.012), description="Electronic noise per frame, 0..1 gray.")
    poisson: float = Field(0.499, ge=0, lt=0.5, description="Poisson's ratio of the tissue.")


@dataclass(frozen=True)
class MotionDraw:
    """Everything random about one clip but its texture noise, which `texture_seed` gives.

    Attributes:
        amplitudes: (5,) peak of each load case over 1.5 s, as a share of the picture's height
            (`probe_motion.MODES`).
        waves: (3, 6, 4), frequency, weight and phase of the sinusoids; one row a load case, the last one the
            drift's.
        drift: Peak out-of-plane drift over 1.5 s, correlation lengths.
        strain_drift: Correlation lengths that a strain of 1 is worth.
        lesion_stiffness: Modulus of the lesion over its surroundings.
        noise: Standard deviation of the electronic noise, 0..1 gray.
        poisson: Poisson's ratio.
        tissue_seed: Seed of the background's stiffness.
        texture_seed: Seed of the texture.
    """

    amplitudes: tuple[float, ...]
    waves: list[list[list[float]]]
    drift: float
    strain_drift: float
    lesion_stiffness: float
    noise: float
    poisson: float
    tissue_seed: int
    texture_seed: int


@dataclass(frozen=True)
class StillMotion:
    """A still in motion.

    Attributes:
        frames: float32 (T, H, W), 0..1; frame 0 is the still.
        flow: float32 (T, 2, H, W), backward flow in pixels, 0 at frame 0.
        draw: What was drawn.
        correlation: float32 (T,), expected correlation of the moved texture with frame 0's, mean over the
            picture.
    """

    frames: _Float32
    flow: _Float32
    draw: MotionDraw
    correlation: _Float32 = field(repr=False)


def animate_still(
    still: FloatArray,
    mask: Mask | None,
    rng: np.random.Generator,
    *,
    n_frames: int = 16,
    dt: float = 0.1,
    hold: Mask | None = None,
    config: StillMotionConfig | None = None,
) -> StillMotion:
    """Draw a motion and apply it to one still.

    Args:
        still: (H, W), 0..1; at least 16 x 16.
        mask: (H, W) lesion, or None; its stiffness is drawn whatever the class.
        rng: Source of all random numbers.
        n_frames: Number of frames T.
        dt: Seconds between frames, > 0.
        hold: (H, W), where nothing moves or changes (outside the sector, burned-in text), or None.
        config: Ranges to draw from.

    Returns:
        T frames with the flow that made them, at the still's size.

    Raises:
        InputError: A shape or the value range is wrong.
        ConfigError: `n_frames` or `dt` is not positive.
    """
    draw = draw_motion(rng, config)
    return apply_motion(still, mask, draw, n_frames=n_frames, dt=dt, hold=hold)


def draw_motion(rng: np.random.Generator, config: StillMotionConfig | None = None) -> MotionDraw:
    """Draw one clip's motion; the same count of numbers is drawn every time."""
    ranges = config or StillMotionConfig()
    peak = _log_uniform(rng, ranges.displacement) * (0.1 if rng.random() < ranges.quiet_share else 1.0)
    share = draw_shares(rng)
    drift = _log_uniform(rng, ranges.drift_rate) * (0.05 if rng.random() < ranges.still_share else 1.0)
    waves = draw_waves(rng, len(MODES) + 1)
    return MotionDraw(
        amplitudes=tuple((peak * share).tolist()),
        waves=waves.tolist(),
        drift=drift,
        strain_drift=float(rng.uniform(*ranges.strain_drift)),
        lesion_stiffness=_log_uniform(rng, ranges.lesion_stiffness),
        noise=float(rng.uniform(*ranges.noise)),
        poisson=ranges.poisson,
        tissue_seed=int(rng.integers(2**62)),
        texture_seed=int(rng.integers(2**62)),
    )


def apply_motion(
    still: FloatArray,
    mask: Mask | None,
    draw: MotionDraw,
    *,
    n_frames: int = 16,
    dt: float = 0.1,
    hold: Mask | None = None,
) -> StillMotion:
    """Apply a drawn motion to a still; arguments and errors as in `animate_still`."""
    picture = _checked(still, mask, hold)
    if n_frames < 1 or not dt > 0:
        raise ConfigError(f"{n_frames} frames every {dt} s were asked for; both must be > 0.", "Use 16 and 0.1.")
    times = np.arange(n_frames, dtype=np.float64) * dt
    flow, strains = _flow_and_strain(picture.shape, mask, draw, times)
    drift = draw.drift * time_courses(np.array(draw.waves), times)[-1]
    distance = np.abs(drift)[:, None, None] + draw.strain_drift * strains
    rng = np.random.Generator(np.random.PCG64(draw.texture_seed))
    source = picture if hold is None else _mirror_into(picture, hold)
    material = texture_path(source, distance, rng)
    frames = np.empty((n_frames, *picture.shape), dtype=np.float32)
    rows, columns = np.indices(picture.shape, dtype=np.float32)
    for t in range(n_frames):
        where = np.stack([rows + flow[t, 1], columns + flow[t, 0]])
        ndimage.map_coordinates(material[t], where, output=frames[t], order=3, mode="mirror")
    if draw.noise > 0:
        # Log compression shows electronic noise where the echo is weak, yet not where nothing was received.
        level = draw.noise * np.clip(4.0 * frames, 0.0, 1.0) * (1.3 - np.clip(frames, 0.0, 1.0))
        frames += level * rng.standard_normal(frames.shape, dtype=np.float32)
    np.clip(frames, 0.0, 1.0, out=frames)
    if hold is not None:
        frames[:, hold] = picture[hold]
        flow[:, :, hold] = 0.0
    frames[0], flow[0] = picture, 0.0
    correlation = np.exp(-0.5 * distance**2).mean(axis=(1, 2)).astype(np.float32)
    return StillMotion(frames, flow, draw, correlation)


def _checked(still: FloatArray, mask: Mask | None, hold: Mask | None) -> _Float32:
    picture = np.asarray(still, dtype=np.float32)
    if picture.ndim != 2 or min(picture.shape) < 16:
        raise InputError(f"Still has shape {picture.shape}; (H, W) with at least 16 x 16 is needed.", "Resize it.")
    if not np.isfinite(picture).all() or picture.min() < 0 or picture.max() > 1:
        raise InputError("Still holds values outside 0..1.", "Divide 8-bit pictures by 255.")
    for name, other in (("mask", mask), ("hold", hold)):
        if other is not None and other.shape != picture.shape:
            raise InputError(f"The {name} has shape {other.shape}; the still has {picture.shape}.", "Resize it.")
    return picture


def _flow_and_strain(
    size: tuple[int, int], mask: Mask | None, draw: MotionDraw, times: npt.NDArray[np.float64]
) -> tuple[_Float32, _Float32]:
    """Return backward flow (T, 2, H, W), pixels, and the strain's magnitude (T, H, W), material frame."""
    height, width = size
    cell = max(size) / _CELLS
    h, w = max(4, round(height / cell)), max(4, round(width / cell))
    side, below = w // 4, h // 3
    grid = (h + below, w + 2 * side)
    rng = np.random.Generator(np.random.PCG64(draw.tissue_seed))
    stiffness = _background_stiffness(grid, h, rng)
    if mask is not None and mask.any():
        share = ndimage.zoom(mask.astype(np.float32), (h / height, w / width), order=1, grid_mode=True, mode="nearest")
        inside = np.zeros(grid)
        inside[:h, side : side + w] = np.clip(share, 0.0, 1.0)
        around = np.exp(np.log(stiffness).mean())
        stiffness = np.where(
            inside > 0, stiffness ** (1 - inside) * (around * draw.lesion_stiffness) ** inside, stiffness
        )
    modes, mode_strain = load_cases(stiffness, draw.poisson)
    amplitude = np.array(draw.amplitudes) * h
    courses = time_courses(np.array(draw.waves), times)[: len(MODES)].T * amplitude
    forward = np.tensordot(courses, at_centres(modes), axes=1)
    backward = invert_displacement(forward)[:, :, :h, side : side + w]
    tensor = np.tensordot(courses, mode_strain, axes=1)[:, :, :h, side : side + w]
    magnitude = np.sqrt((tensor**2).sum(axis=1))
    up_y, up_x = upsampling_matrix(h, height), upsampling_matrix(w, width)
    scale = np.array([width / w, height / h], dtype=np.float32)[:, None, None]
    flow = np.einsum("Hh,tchw,Ww->tcHW", up_y, backward, up_x, optimize=True).astype(np.float32) * scale
    strains = np.einsum("Hh,thw,Ww->tHW", up_y, magnitude, up_x, optimize=True).astype(np.float32)
    return flow, np.maximum(strains, 0.0)


def _background_stiffness(grid: tuple[int, int], shown: int, rng: np.random.Generator) -> FloatArray:
    """Return a random layered map (rows, columns) of moduli around 1; the picture has `shown` rows."""
    rows, columns = grid
    y = np.arange(rows)[:, None] / shown
    log_modulus = np.zeros(grid)
    across = np.linspace(0, 1, columns)
    for edge in (0.08, 0.3, 0.7):  # skin, fat, gland, muscle, roughly
        wave = rng.normal(0, 0.05) + 0.05 * np.sin(2 * np.pi * (rng.uniform(0.4, 1.5) * across + rng.random()))
        step = 1.0 / (1.0 + np.exp(-(y - edge - wave[None]) / 0.02))
        log_modulus += rng.normal(0, 0.45) * step
    patches = ndimage.gaussian_filter(rng.standard_normal(grid), min(grid) / 12)
    log_modulus += rng.uniform(0.0, 0.45) * patches / patches.std()
    return np.exp(np.clip(log_modulus, -1.6, 1.6))


def _mirror_into(picture: _Float32, hold: Mask) -> _Float32:
    """Fill held pixels with the mirror image of their surroundings, so that no held content moves in."""
    if not hold.any() or hold.all():
        return picture
    rows, columns = np.indices(picture.shape)
    nearest = ndimage.distance_transform_edt(hold, return_distances=False, return_indices=True)
    y = np.clip(2 * nearest[0] - rows, 0, picture.shape[0] - 1)
    x = np.clip(2 * nearest[1] - columns, 0, picture.shape[1] - 1)
    good = ~hold[y, x]
    filled: _Float32 = np.where(good, picture[y, x], picture[nearest[0], nearest[1]])
    return filled


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    low, high = limits
    if not 0 < low <= high:
        raise ConfigError(f"Range ({low}, {high}) is not 0 < low <= high.", "Give it as [low, high].")
    return float(low * (high / low) ** rng.random())
