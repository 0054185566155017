"""Split a still into base and speckle, and let the speckle alone change with the slice.

Speckle of a log-compressed still is modelled as base + A g(Z0): Z0 a standard normal field, g the texture's
own quantile function, A its local amplitude. While the imaged slice moves by D correlation lengths, Z follows
a Gaussian process with correlation exp(-D^2 / 2) and the texture's own spectrum, conditioned on Z(0) = Z0
(Matheron's rule):

    Z(D) = N(D) + exp(-D^2 / 2) (Z0 - N(0)),   N(D) = sum_k sqrt(w_k) (cos(omega_k D) a_k + sin(omega_k D)
    b_k),

a_k and b_k independent noise fields, (omega_k, w_k) Gauss-Hermite nodes and weights. So speckle decorrelates,
returns when the slice returns, and keeps contrast and grain. Left to others: how far the slice moves, and
where to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import ndtri

from us_i2v.types import FloatArray

_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]

_SHADES = 129  # knots of the texture's quantile function
_GRAIN = 0.011  # speckle's scale, as a share of the longer side


def texture_path(picture: _Float32, distance: _Float32, rng: np.random.Generator) -> _Float32:
    """Return the still, unmoved, while its texture changes.

    Args:
        picture: (H, W), 0..1.
        distance: (T, H, W), how far the slice has moved at each pixel and time, in correlation lengths; 0
            gives the still.
        rng: Source of the noise.

    Returns:
        float32 (T, H, W), not clipped.
    """
    base, scale, normal, knots, quantiles = _split_texture(picture)
    # Gauss-Hermite nodes make sum_k w_k cos(omega_k D) = exp(-D^2 / 2) to 1e-2 up to D = 4.
    nodes, masses = np.polynomial.hermite_e.hermegauss(10)
    positive = nodes > 0
    omega, mass = nodes[positive], masses[positive] / masses[positive].sum()
    noise = _matched_noise(normal, 2 * omega.size, rng) * np.sqrt(np.repeat(mass, 2))[:, None, None]
    start = noise[0::2].sum(axis=0)
    path = np.empty((distance.shape[0], *picture.shape), dtype=np.float32)
    texture = scale * np.interp(normal, knots, quantiles).astype(np.float32)
    contrast = _contrast_gain(base, texture)
    for t, moved in enumerate(distance):
        kept = np.exp(-0.5 * moved**2)
        state = kept * (normal - start)
        for k, rate in enumerate(omega):
            angle = np.float32(rate) * moved
            state += np.cos(angle) * noise[2 * k] + np.sin(angle) * noise[2 * k + 1]
        gain = np.interp(kept, *contrast).astype(np.float32)
        path[t] = base + gain * scale * np.interp(state, knots, quantiles).astype(np.float32)
    return path


def _contrast_gain(base: _Float32, texture: _Float32) -> tuple[FloatArray, FloatArray]:
    """Return the texture's gain g over its correlation r with the still, as knots, so that contrast is kept.

    The base holds peaks of the same grain, hence co-varies with the texture; without it the sum would fade.
    With V the variances and C the covariance at grain size, g solves V_b + 2 g r C + g^2 V_t = V_b + 2 C +
    V_t.
    """
    grain = _GRAIN * max(base.shape)
    fine_b, fine_t = (part - ndimage.gaussian_filter(part, grain, mode="mirror") for part in (base, texture))
    variance = float((fine_t**2).mean()) + 1e-12
    joint = max(float((fine_b * fine_t).mean()), 0.0) / variance
    kept = np.linspace(0.0, 1.0, 33)
    gain = np.sqrt((kept * joint) ** 2 + 1.0 + 2.0 * joint) - kept * joint
    return kept, np.minimum(gain, 1.5)


def _split_texture(
    picture: _Float32,
) -> tuple[_Float32, _Float32, _Float32, _Float64, _Float64]:
    """Split a still into base + scale * g(normal).

    Edges and bright lines stand out of the texture's usual range; what exceeds it goes to the base, which
    only moves.

    Returns:
        base (H, W), scale (H, W), normal (H, W) with a standard normal histogram, and g as knots and its
        values.
    """
    grain = _GRAIN * max(picture.shape)
    rough = picture - ndimage.gaussian_filter(picture, grain, mode="mirror")
    # Where echoes fade into black, there is no room for speckle.
    scale = np.minimum(_usual_amplitude(rough), 0.3 * (picture - rough) + 1e-6)
    relative = 2.5 * np.tanh(rough / (2.5 * scale))
    shades = np.sort(relative, axis=None)
    ranks = (np.arange(_SHADES) + 0.5) / _SHADES
    quantiles = np.interp(ranks, (np.arange(shades.size) + 0.5) / shades.size, shades).astype(np.float64)
    quantiles += np.linspace(0.0, 1e-6, _SHADES)  # strictly increasing, so that g can be inverted
    knots = np.asarray(ndtri(ranks))
    normal = np.interp(relative, quantiles, knots).astype(np.float32)
    base = picture - scale * np.interp(normal, knots, quantiles).astype(np.float32)
    return base, scale, normal, knots, quantiles


def _usual_amplitude(rough: _Float32) -> _Float32:
    """Return the local amplitude (H, W) of speckle: a local median, which few edges do not raise.

    Log compression gives speckle the same contrast everywhere but where it fades into black, so the amplitude
    is also held below a little more than the picture's own median: what exceeds it is structure.
    """
    step = max(1, max(rough.shape) // 64)
    small = ndimage.median_filter(np.abs(rough)[::step, ::step], size=7, mode="mirror")
    visible = small[small > 1e-3]
    small = np.minimum(small, 1.2 * np.median(visible) if visible.size else 0.0)
    rows = np.clip((np.arange(rough.shape[0])) / step, 0, small.shape[0] - 1)
    columns = np.clip((np.arange(rough.shape[1])) / step, 0, small.shape[1] - 1)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    amplitude = ndimage.map_coordinates(ndimage.gaussian_filter(small, 1.5, mode="mirror"), grid, order=1)
    # 1.48 median |x| is the standard deviation of a normal x.
    return (1.48 * amplitude + 1e-6).astype(np.float32)


def _matched_noise(normal: _Float32, count: int, rng: np.random.Generator) -> _Float32:
    """Draw `count` standard normal fields (count, H, W) with the texture's own spectrum, by two depth bands.

    Speckle grows wider with depth, so the upper and the lower half each give a spectrum, faded into each
    other.
    """
    height, width = normal.shape
    half = height // 2
    fields = []
    for band in (normal[:half], normal[half:]):
        windowed = band * np.outer(np.hanning(band.shape[0]), np.hanning(width))
        amplitude = np.abs(np.fft.rfft2(windowed, s=(height, width)))
        amplitude = np.sqrt(ndimage.gaussian_filter(amplitude**2, 1.5, mode=("wrap", "mirror")))
        white = np.fft.rfft2(rng.standard_normal((count, height, width), dtype=np.float32))
        noise = np.fft.irfft2(white * amplitude, s=(height, width))
        fields.append(noise / noise.std(axis=(1, 2), keepdims=True))
    depth = np.clip((np.arange(height) / height - 0.25) / 0.5, 0.0, 1.0)[:, None]
    angle = 0.5 * np.pi * depth
    blended: _Float32 = (np.cos(angle) * fields[0] + np.sin(angle) * fields[1]).astype(np.float32)
    return blended
