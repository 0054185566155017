"""The still-to-clip path as one ONNX graph of fixed shape: condition, sampler, decoder, warp, drawn speckle.

Nothing random lies in the graph: all noise is input, so that every runtime makes the same clip. Sizes are fixed, hence
every resampling is a product with constant matrices, and the sampler's loop is unrolled.

| input | shape | what |
|---|---|---|
| `still` | (1, 1, H, W) | gray, 0..1 |
| `latent_noise` | (1, C_z, T_z, H_z, W_z) | standard normal |
| `fine_noise` | (1, 1, T, H, W) | unit variance, the grain of the still's texture, correlated in time, 0 in frame 0 |
| `coarse_noise` | (1, 1, T, S, S) | the same at the model's size |
| `grain` | (2, H) | correlation of `fine_noise` in neighbouring pixels along y and x, by row |

Output `frames`, (1, 1, T, H, W), 0..1; frame 0 is the still. `draw_inputs` draws what `ImageToVideo` would. The graph
differs from that in two things: it does not look for pixels that must not move (scales, text), and the networks' view
of the still is not rounded to 8 bits. What is drawn how: `models.render`, mode "stationary".
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.onnx import symbolic_helper

from us_i2v.data.atomic import publish, temporary_beside, unwritable
from us_i2v.data.transforms import Fit, to_gray
from us_i2v.errors import ConfigError, InputError
from us_i2v.generators import LDDM
from us_i2v.models.motion import Motion, interpolation_matrix
from us_i2v.models.render import _CROSS, _EXCESS, _FINE_CELLS, _LOCAL_CELLS, SpeckleNoise
from us_i2v.options import choose_sampler, frame_interval
from us_i2v.seeding import per_sample_noise
from us_i2v.still import Still

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from us_i2v.options import GenerateOptions
    from us_i2v.pipeline import ImageToVideo
    from us_i2v.types import FloatArray, Image

OPSET = 17
"""GridSample of pictures needs 16."""

MAX_PIXELS = 1 << 22
"""Largest stills: all frames' flows and noises lie in memory at once, about a hundred bytes a pixel and frame."""

INPUTS = ("still", "latent_noise", "fine_noise", "coarse_noise", "grain")
OUTPUT = "frames"


class Resize(nn.Module):
    """`F.interpolate` between two fixed sizes as a product with a matrix along each side.

    Args:
        before: (H, W).
        after: (H, W).
        mode: "area", "bilinear" or "bicubic".
        antialias: As in `F.interpolate`.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        before: tuple[int, int],
        after: tuple[int, int],
        mode: Literal["area", "bilinear", "bicubic"],
        *,
        antialias: bool = False,
    ) -> None:
        super().__init__()

        def matrix(a: int, b: int) -> Tensor:
            align = None if mode == "area" else False
            one = torch.eye(a)[None, None]
            return F.interpolate(one, size=(b, a), mode=mode, align_corners=align, antialias=antialias)[0, 0]

        self.register_buffer("rows", matrix(before[0], after[0]))
        self.register_buffer("columns", matrix(before[1], after[1]).T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(..., H, W) -> (..., H', W')."""
        return self.rows @ x @ self.columns


class ClipGraph(nn.Module):
    """What is exported, see the module's head.

    Args:
        model: Weights of an LDDM with a warp decoder, on the CPU.
        size: (H, W) of the still.
        options: How clips are made.

    Raises:
        ConfigError: The weights or options cannot be exported.
    """

    rows: Tensor
    columns: Tensor
    coarse_rows: Tensor
    coarse_columns: Tensor
    factors: Tensor

    def __init__(self, model: ImageToVideo, size: tuple[int, int], options: GenerateOptions) -> None:
        super().__init__()
        generator = model.generator
        shape = model.info.autoencoder
        check_exportable(model, size, options)
        if not isinstance(generator, LDDM):
            raise ConfigError(f"Weights of kind '{model.info.kind}' were given.", "Give those of an LDDM.")
        self._generator, self._options, self._size = generator, options, size
        self.autoencoder, self.denoiser = generator.autoencoder, generator.denoiser
        side = shape.size
        square = (side, side)
        cell = max(4.0, _FINE_CELLS * max(size) / 500)
        fine_cells = (max(2, round(size[0] / cell)), max(2, round(size[1] / cell)))
        cells = (min(_LOCAL_CELLS, size[0]), min(_LOCAL_CELLS, size[1]))
        small_cells = (min(_LOCAL_CELLS, side), min(_LOCAL_CELLS, side))
        grid = (side // 2, side // 2)
        self.cells, self.smooth = Resize(size, fine_cells, "area"), Resize(fine_cells, size, "bicubic")
        self.to_square = Resize(size, square, "bilinear", antialias=True)
        self.local, self.to_grid = Resize(size, cells, "area"), Resize(cells, grid, "bilinear")
        self.small_local = Resize(square, small_cells, "area")
        self.small_to_grid = Resize(small_cells, grid, "bilinear")
        for name, n_in, n_out in (("rows", grid[0], size[0]), ("columns", grid[1], size[1])):
            self.register_buffer(name, interpolation_matrix(n_in, n_out, 0, n_in, "linear"))
        for name, n_out in (("coarse_rows", size[0]), ("coarse_columns", size[1])):
            self.register_buffer(name, interpolation_matrix(side, n_out, 0, side, "cubic"))
        self.register_buffer("factors", options.speckle * model.info.speckle.factors(shape.n_frames))

    def forward(
        self, still: Tensor, latent_noise: Tensor, fine_noise: Tensor, coarse_noise: Tensor, grain: Tensor
    ) -> Tensor:
        """See the module's head."""
        motion = self._motion(self._seen(still), latent_noise)
        frames = self._draw(still, motion, fine_noise, coarse_noise, grain)
        return torch.cat([still[:, :, None], frames[:, :, 1:]], dim=2).clamp(0, 1)

    def _seen(self, still: Tensor) -> Tensor:
        """The still as the networks see it."""
        if self._size == (self.autoencoder.config.size,) * 2:
            return still
        seen: Tensor = self.to_square(still)
        return seen

    def _motion(self, seen: Tensor, noise: Tensor) -> Motion:
        generator, options = self._generator, self._options
        features = self.denoiser.embed_still(seen)
        latent = generator._denoise(generator._guided(seen, features, options), noise, [0], options)
        motion = self.autoencoder.decode(latent, seen).in_float32().anchored()
        return motion.scaled(options.motion, self.factors).first(options.frames)

    def _draw(self, still: Tensor, motion: Motion, fine_noise: Tensor, coarse_noise: Tensor, grain: Tensor) -> Tensor:
        """`models.render`, mode "stationary", whose formulas these are."""
        low = self.smooth(self.cells(still))
        texture = still - low
        variance = self.to_grid(self.local(texture.square()))
        covariance = _CROSS * torch.minimum(self.to_grid(self.local(texture * low)).clamp(min=0), variance)
        small = self.small_to_grid(self.small_local(self.to_square(texture).square()))
        small = small * (1 + covariance / variance.clamp(min=1e-8))
        change = (motion.gate * motion.scale).square()
        moved = grid_sampled(torch.cat([variance, covariance, small], dim=1), motion.flow)
        variance, covariance, small = moved[:, :1], moved[:, 1:2], moved[:, 2:]
        rho = (1 - change / (2 * small).clamp(min=1e-8)).clamp(0, 1)
        excess = _EXCESS * (change - 2 * small).clamp(min=0).sqrt()
        strength = ((1 - rho.square()) * variance + 2 * (1 - rho) * covariance).sqrt()
        large = Motion(motion.flow, motion.gain, rho, motion.gate * motion.mean, strength).at_size(self._size)
        both = grid_sampled(torch.cat([still, texture], dim=1), large.flow)
        fine = carried(fine_noise, large.flow, grain)
        coarse = carried(self.coarse_rows @ coarse_noise @ self.coarse_columns.T, large.flow, None)
        frames = (both[:, :1] + (large.gate - 1) * both[:, 1:]) * (1 + large.gain) + large.mean + large.scale * fine
        return frames + (self.rows @ excess @ self.columns.T) * coarse


def grid_sampled(picture: Tensor, flow: Tensor) -> Tensor:
    """`models.motion.warp` of one sample: (1, C, H, W), flow (1, 2, T, H, W) in pixels -> (1, C, T, H, W)."""
    (_, channels, height, width), frames = picture.shape, flow.shape[2]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    base = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    where = base[None] + flow[0].permute(1, 2, 3, 0) * torch.tensor([2 / width, 2 / height])
    given = picture.expand(frames, channels, height, width)
    moved = F.grid_sample(given, where, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.transpose(0, 1)[None]


def carried(noise: Tensor, flow: Tensor, grain: Tensor | None) -> Tensor:
    """`models.render.carried` of one sample; values are gathered around the edges, whatever the flow.

    Args:
        noise: (1, 1, T, H, W).
        flow: (1, 2, T, H, W), pixels.
        grain: (2, H), correlation of neighbours along y and x by row; None: alike.
    """
    frames, height, width = (int(side) for side in noise.shape[2:])
    x = flow[0, 0] + torch.arange(width).float()
    y = flow[0, 1] + torch.arange(height).float()[:, None]
    left, top = x.floor(), y.floor()
    share_x, share_y = x - left, y - top

    flat = noise[0, 0].reshape(frames, height * width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = wrapped(row, height) * width + wrapped(column, width)
        return flat.gather(1, index.reshape(frames, height * width)).reshape(frames, height, width)

    upper = (1 - share_x) * at(top, left) + share_x * at(top, left + 1)
    lower = (1 - share_x) * at(top + 1, left) + share_x * at(top + 1, left + 1)
    moved = (1 - share_y) * upper + share_y * lower
    if grain is not None:
        kept = torch.ones_like(x)
        for share, alike in ((share_y, grain[0]), (share_x, grain[1])):
            kept = kept * (1 - 2 * share * (1 - share) * (1 - alike[:, None]))
        moved = moved / kept.clamp(min=0.05).sqrt()
    return moved[None, None]


def wrapped(place: Tensor, size: int) -> Tensor:
    """Whole places modulo a size, as int64: products of float32 tell neighbours apart up to 2^24 only."""
    return (place - (place / size).floor() * size).long()


def check_exportable(model: ImageToVideo, size: tuple[int, int], options: GenerateOptions) -> None:
    """Raise `ConfigError` for weights or options that the graph does not hold."""
    info = model.info
    if (
        info.kind != "lddm"
        or info.autoencoder.decoder != "warp"
        or not info.autoencoder.residual
        or info.process is None
    ):
        raise ConfigError(
            f"Weights of kind '{info.kind}' with decoder '{info.autoencoder.decoder}' were given; an LDDM whose warp "
            "decoder has a residual can be exported.",
            "Use other weights.",
        )
    if info.fit != "stretch":
        raise ConfigError(f"These weights fit stills by '{info.fit}'; 'stretch' can be exported.", "Use other weights.")
    model.generator.check(options)
    if choose_sampler(options, info.process).sampler.stochastic:
        raise ConfigError("The sampler 'ddpm' draws noise in every step.", "Choose another --sampler.")
    if options.frames > info.autoencoder.n_frames or options.loop:
        raise ConfigError(
            f"{options.frames} frames{' in a loop' if options.loop else ''} were asked for; the graph holds up to "
            f"{info.autoencoder.n_frames} that do not loop.",
            "Lower --frames.",
        )
    if options.texture != "stationary":
        raise ConfigError(f"Texture '{options.texture}' cannot be exported.", "Use 'stationary'.")
    if min(size) < 16:
        raise ConfigError(f"A size of {size[1]}x{size[0]} was asked for; at least 16x16 is needed.", "Raise --size.")
    if size[0] * size[1] > MAX_PIXELS:
        raise ConfigError(
            f"A size of {size[1]}x{size[0]} was asked for; at most {MAX_PIXELS:,} pixels can be exported.",
            "Lower --size.",
        )


def draw_inputs(
    model: ImageToVideo, still: Image, options: GenerateOptions, seed: int, size: Sequence[int] | None = None
) -> dict[str, FloatArray]:
    """Draw what `ImageToVideo` draws for a still and a seed, as the graph's inputs (float32).

    Args:
        model: The weights that were exported.
        still: uint8 (H, W), or (H, W, 3), of which the luma is taken.
        options: As at export.
        seed: Seed of the clip.
        size: (H, W) at export, which the still must have; None: what it has is not checked.

    Raises:
        InputError: The still has another size.
    """
    still = to_gray(still)
    if size is not None and still.shape != tuple(size):
        raise InputError(
            f"The still is {still.shape[1]}x{still.shape[0]} pixels; the graph was exported for {size[1]}x{size[0]}.",
            f"Resize it, or export with --size {still.shape[1]}x{still.shape[0]}.",
        )
    shape = model.info.autoencoder
    prepared = Still.prepare(still, Fit(model.info.fit, shape.size))
    texture = prepared.texture((shape.size // 2, shape.size // 2))
    with torch.no_grad():
        predicted = model.generator.autoencoder.persistence(prepared.seen)
    by_place = None if predicted is None else prepared.map_from_square(predicted)
    interval = frame_interval(model.info.frame_interval_s, model.info.interval_range_s, options.fps)
    correlation = model.info.speckle.at(by_place, interval)
    noise = SpeckleNoise([seed], texture, shape.size, correlation)
    found = (
        prepared.filled,
        per_sample_noise([seed], shape.latent_shape, "latent"),
        noise.fine.take(options.frames),
        noise.coarse.take(options.frames),
        torch.stack(texture.fine_grain.at_rows(still.shape[0]).neighbours()),
    )
    return {name: tensor.float().numpy() for name, tensor in zip(INPUTS, found, strict=True)}


def export(model: ImageToVideo, path: Path, size: tuple[int, int], options: GenerateOptions) -> None:
    """Write the graph for stills of one size, with its weights in the file.

    Args:
        model: Weights, on the CPU.
        path: An `.onnx` file.
        size: (H, W).
        options: How clips are made: sampler, steps and conditions are part of the graph.

    Raises:
        ConfigError: The package onnx is missing, or the weights or options cannot be exported.
        OutputError: The file cannot be written.
    """
    if find_spec("onnx") is None:
        raise ConfigError("Exporting needs the package onnx.", "Install it: pip install 'us-i2v[onnx]'.")
    graph = ClipGraph(model, size, options).eval()
    shape = model.info.autoencoder
    example = (
        torch.rand(1, 1, *size),
        torch.randn(1, *shape.latent_shape),
        torch.randn(1, 1, options.frames, *size),
        torch.randn(1, 1, options.frames, shape.size, shape.size),
        torch.full((2, size[0]), 0.5),
    )
    given: dict[str, Any] = {"input_names": list(INPUTS), "output_names": [OUTPUT], "opset_version": OPSET}
    with temporary_beside(path) as part, torch.no_grad(), warnings.catch_warnings():
        exporter: Any = torch.onnx
        exporter.register_custom_op_symbolic("aten::adaptive_avg_pool2d", _averaged, OPSET)
        try:
            # By tracing, though torch calls it old: torch.export stops where the schedules check their times. All that
            # is traced as a constant is one here, so that the tracer's warnings say nothing.
            warnings.simplefilter("ignore")
            exporter.export(graph, example, str(part), dynamo=False, do_constant_folding=False, **given)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            exporter.unregister_custom_op_symbolic("aten::adaptive_avg_pool2d", OPSET)
        publish(part, path)


def _averaged(g: Any, x: Any, size: Any) -> Any:
    """Averaging by whole factors; the exporter takes no size that was computed, as the decoder's half size is."""
    fixed = symbolic_helper._maybe_get_const(size, "is")
    inner = x.type().sizes()
    kernel = [i // o for i, o in zip(inner[-2:], fixed, strict=True)] if isinstance(fixed, list) and inner else [2, 2]
    return g.op("AveragePool", x, kernel_shape_i=kernel, strides_i=kernel)
