"""One phantom clip: draw a breast and a motion, move scatterers, image each frame anew.

Frames are never warped pictures: every frame images all scatterers of the slice at their displaced positions,
so speckle moves, stretches and decorrelates as scatterers do. Attenuation is summed along the beam through
the deformed tissue; the gain that undoes it is only about right, and raises the noise with depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.data.phantom.anatomy import Anatomy, draw_anatomy, typical_attenuation
from us_i2v.data.phantom.config import Label, PhantomConfig
from us_i2v.data.phantom.imaging import Imager, Scatterers, compound, log_compress, system_noise
from us_i2v.data.phantom.motion import TissueMotion, draw_plan
from us_i2v.data.probe_motion import upsampling_matrix
from us_i2v.seeding import numpy_generator
from us_i2v.types import FloatArray, Frames, Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEAM_ROWS = 96  # rows of the coarse grid on which attenuation is summed
_APERTURE_MM = 0.8  # lateral blur of shadows by the aperture
_SHEET_PER_MM2 = 60.0  # scatterers a mm^2 of ligaments and fasciae
_SHEET_JITTER_MM = 0.06


@dataclass(frozen=True)
class PhantomClip:
    """A simulated clip and its truth.

    Attributes:
        frames: uint8 (T, H, W), B-mode gray.
        flow: float32 (T, 2, H, W), backward flow from frame 0, pixels: frame_t(p) shows what frame_0(p +
            flow) did.
        masks: bool (T, H, W), the lesion's section in each frame.
        envelope: float32 (T, H, W), linear, before the gray scale: the mean over looks, in each of which
            gland without loss has a mean square of 1.
        fps: Frames a second.
        label: "benign", "malignant" or "normal".
        drift_mm: (T,) position of the imaging plane.
        anatomy: The breast at rest.
    """

    frames: Frames
    flow: npt.NDArray[np.float32]
    masks: Mask
    envelope: npt.NDArray[np.float32]
    fps: float
    label: Label
    drift_mm: npt.NDArray[np.float64]
    anatomy: Anatomy = field(repr=False)


def simulate(config: PhantomConfig, seed: int) -> PhantomClip:
    """Simulate one clip; the same config and seed give the same clip, bit by bit, on one machine type.

    With `motion_only`, the same seed gives both classes the same first frame and the same probe motion.
    """
    return simulate_at_noise(config, seed, (config.scanner.noise_db,))[0]


def simulate_at_noise(config: PhantomConfig, seed: int, levels_db: Sequence[float]) -> list[PhantomClip]:
    """Simulate one clip at several levels of noise in little more than the time of one.

    Args:
        config: See `PhantomConfig`; its own level of noise is not used.
        seed: See `simulate`.
        levels_db: In place of `Scanner.noise_db`.

    Returns:
        A clip a level, equal to what `simulate` gives with that level. They share their flow and masks.
    """
    height, width = config.size
    anatomy = draw_anatomy(config, numpy_generator(seed, "anatomy"), numpy_generator(seed, "stiffness"))
    plan = draw_plan(config, numpy_generator(seed, "motion"))
    motion = TissueMotion(config, anatomy, plan)
    imager = Imager(config.scanner, config.size, config.depth_mm)
    scatterers = _place(config, anatomy, motion, imager.reach_mm, numpy_generator(seed, "scatterers"))
    pieces = [scatterers[part] for part in scatterers.parts()]
    parts = [(piece, motion.modes_at(piece.x, piece.y)) for piece in pieces]

    look = numpy_generator(seed, "gain")
    sliders = look.normal(0, config.scanner.tgc_error_db, 8)
    white_db = look.uniform(*config.gland_below_white_db)
    dynamic_range = look.uniform(*config.dynamic_range_db)
    pixel = config.depth_mm / height
    shape = (config.n_frames, height, width)
    noise_rng = numpy_generator(seed, "noise")
    gain = _gain(config, imager.rows_mm, sliders)
    noise_gains = [(10.0 ** ((level + gain - gain[-1]) / 20.0)).astype(np.float32) for level in levels_db]

    envelopes = [np.empty(shape, dtype=np.float32) for _ in levels_db]
    flow = np.empty((config.n_frames, 2, height, width), dtype=np.float32)
    masks = np.zeros(shape, dtype=bool)
    x, y = imager.columns_mm[None, :], imager.rows_mm[:, None]
    for t, plane in enumerate(plan.drift):
        field_t = imager.field(_moved(part, motion.forward(at, t), plane) for part, at in parts)
        back = motion.backward(x, y, t)
        loss = _beam_loss(config, anatomy, motion, t, float(plane))
        signal = field_t / np.sqrt(config.scanner.scatterers_per_mm3) * 10.0 ** ((gain[:, None] - loss) / 20.0)
        noise = system_noise(signal.shape, pixel, config.scanner, noise_rng)
        for envelope, noise_gain in zip(envelopes, noise_gains, strict=True):
            envelope[t] = compound(signal + noise_gain[:, None] * noise)
        flow[t] = back / pixel
        if anatomy.lesion is not None:
            masks[t] = anatomy.lesion.inside(x + back[0], y + back[1], plane)
    flow[0] = 0.0
    return [
        PhantomClip(
            log_compress(envelope, white_db, dynamic_range),
            flow,
            masks,
            envelope,
            config.fps,
            config.label,
            plan.drift,
            anatomy,
        )
        for envelope in envelopes
    ]


def _place(
    config: PhantomConfig, anatomy: Anatomy, motion: TissueMotion, reach_z: float, rng: np.random.Generator
) -> Scatterers:
    """Place scatterers wherever tissue may come into view during the clip, sorted by depth."""
    drift = motion.plan.drift
    # Numbers are drawn for a region that only the plan sets: what is drawn must not depend on stiffness.
    far = 1.5 * float(np.abs(motion.plan.courses).max(axis=0).sum()) * max(1.0, config.width_mm / config.depth_mm)
    low = np.array([-far - 2.0, 0.0, drift.min() - reach_z])
    high = np.array([config.width_mm + far + 2.0, config.depth_mm + far + 0.6, drift.max() + reach_z])
    count = round(float(np.prod(high - low)) * config.scanner.scatterers_per_mm3)
    x, y, z = (rng.uniform(low[k], high[k], count) for k in range(3))
    sign = rng.choice((-1.0, 1.0), count)
    sheets = _sheets(config, anatomy, low, high, rng)
    reach_x, reach_y = (min(reach, far) for reach in motion.reach_mm)
    near = (x > -reach_x - 2.0) & (x < config.width_mm + reach_x + 2.0) & (y < config.depth_mm + reach_y + 0.6)
    x, y, z = x[near], y[near], z[near]
    amplitude = anatomy.echo(x, y, z) * sign[near]
    joined = [np.concatenate(pair) for pair in zip((x, y, z, amplitude), sheets, strict=True)]
    order = np.argsort(joined[1], kind="stable")
    return Scatterers(*(part[order] for part in joined))


def _sheets(
    config: PhantomConfig, anatomy: Anatomy, low: FloatArray, high: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Place scatterers on ligaments and fasciae: x, y, z and amplitude.

    A sheet of m scatterers a mm^2 at depth-wise width s_a is as bright in its middle as a volume of n with
    amplitude 1 if m a^2 / (sqrt(pi) s_a) = n.
    """
    scanner = config.scanner
    unit = np.sqrt(np.sqrt(np.pi) * scanner.axial_sigma_mm * scanner.scatterers_per_mm3 / _SHEET_PER_MM2)
    parts = []
    for line in anatomy.lines:
        length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(line.x), np.diff(line.y)))])
        count = round(length[-1] * (high[2] - low[2]) * _SHEET_PER_MM2)
        at = rng.uniform(0.0, length[-1], count)
        z = rng.uniform(low[2], high[2], count)
        x = np.interp(at, length, line.x) - anatomy.slope * z
        y = np.interp(at, length, line.y) + rng.normal(0, _SHEET_JITTER_MM, count)
        level = np.interp(at, length, line.level_db)
        amplitude = unit * 10.0 ** (level / 20.0) * rng.choice((-1.0, 1.0), count)
        keep = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]) & (level > -40)
        parts.append(np.stack([x, y, z, amplitude])[:, keep])
    joined = np.concatenate(parts, axis=1)
    return joined[0], joined[1], joined[2], joined[3]


def _moved(points: Scatterers, displacement: FloatArray, plane: float) -> Scatterers:
    """Return scatterers displaced by (2, n) mm, as seen from the imaging plane at z = `plane`."""
    x, y = points.x + displacement[0], points.y + displacement[1]
    return Scatterers(x, y, points.z - plane, points.amplitude)


def _gain(config: PhantomConfig, rows_mm: FloatArray, sliders: FloatArray) -> npt.NDArray[np.float64]:
    """Return the time-gain compensation in dB, (H,)."""
    knots = np.linspace(0.0, config.depth_mm, sliders.size)
    return typical_attenuation(config.scanner.frequency_mhz) * rows_mm + np.interp(rows_mm, knots, sliders)


def _beam_loss(config: PhantomConfig, anatomy: Anatomy, motion: TissueMotion, t: int, plane: float) -> FloatArray:
    """Return the two-way loss from the probe to each pixel in frame t, dB, (H, W)."""
    height, width = config.size
    rows = min(_BEAM_ROWS, height)
    columns = max(4, min(round(rows * width / height), width))
    step_y, step_x = config.depth_mm / rows, config.width_mm / columns
    y = (np.arange(rows)[:, None] + 0.5) * step_y
    x = (np.arange(columns)[None, :] + 0.5) * step_x
    back = motion.backward(x, y, t)
    density = anatomy.attenuation(x + back[0], y + back[1], plane, config.scanner.frequency_mhz) * step_y
    loss = np.cumsum(density, axis=0) - 0.5 * density
    loss = ndimage.gaussian_filter1d(loss, _APERTURE_MM / step_x, axis=1, mode="nearest")
    return np.asarray(upsampling_matrix(rows, height) @ loss @ upsampling_matrix(columns, width).T)
