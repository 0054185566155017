"""From a prepared still and its motion to a finished clip: segment by segment, part by part, masks along.

Flow, residual and scale come on the model's grid and are resampled to the still's own size; frame 0 is the still to
the last bit. How one part is rendered: `models.render`; how segments go on from each other: `models.continuation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from us_i2v.data.transforms import Fit
from us_i2v.models.continuation import continued, last_frame
from us_i2v.models.motion import Motion, warp_mask
from us_i2v.models.render import SpeckleNoise, render
from us_i2v.still import Still, seen_by_networks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.options import GenerateOptions
    from us_i2v.seeding import Seed
    from us_i2v.types import FloatArray, Frames, Mask
    from us_i2v.weights import Header

    MotionOf = Callable[[int, Tensor], Motion]
    """(number of the segment, what it starts from: (1, 1, S, S)) -> its motion, of all clips."""

_PIXELS_AT_ONCE = {"cpu": 1_200_000, "cuda": 32_000_000}
"""Pixels that are rendered together. On a CPU few, so that they stay in the cache."""


@dataclass(frozen=True)
class GeneratedClip:
    """One clip.

    Attributes:
        frames: uint8, (T, H, W) or (T, H, W, 3) as the still; frame 0 is the still.
        masks: (T, H, W) bool, the carried mask, or None.
        fps: Frames a second.
        seed: Seed that made it.
        flow: float32 (T, 2, h, w), backward flow in cells of the model's grid.
        latent: float32 (K, C_z, T_z, H_z, W_z), one a segment, on the CPU: what `ImageToVideo.animate` takes.
    """

    frames: Frames
    masks: Mask | None
    fps: float
    seed: Seed
    flow: FloatArray
    latent: Tensor | None = None


@dataclass(frozen=True)
class Renderer:
    """Renders clips of a still as the weights say.

    Attributes:
        info: Header of the weights: fit, decoder, and how drawn speckle lasts.
        autoencoder: The first stage, which may predict from the still how long speckle lasts where.
        device: Where motion is.
        still: What is rendered, prepared for that device.
        mask: (H, W) bool, carried along, or None.
    """

    info: Header
    autoencoder: Autoencoder
    device: torch.device
    still: Still
    mask: Mask | None = None

    def clips(
        self, motion_of: MotionOf, count: int, seeds: Sequence[Seed], options: GenerateOptions, fps: float
    ) -> list[GeneratedClip]:
        """Render clips part by part; besides them only their motion, on the model's grid, grows with their length.

        Args:
            motion_of: Makes the motion of one segment of all clips.
            count: Segments; each goes on from the last frame of the one before. More than one only of a lone clip.
            seeds: Of the drawn speckle, one a clip.
            options: How many frames, and how much of motion and speckle.
            fps: Frames a second, to be told.
        """
        still, together = self.still, len(seeds)
        frames = np.empty((together, options.frames, *still.picture.shape), np.uint8)
        masks = None if self.mask is None else np.empty((together, options.frames, *still.size), np.bool_)
        flows = []
        noise = texture = end = None
        seen, done = still.seen, 0
        for segment in range(count):
            motion = still.from_square(motion_of(segment, seen))
            factors = self.info.speckle.factors(motion.n_frames, loop=options.loop)
            motion = motion.scaled(options.motion, options.speckle * factors)
            if end is not None:
                motion = continued(end, motion, painted=self.info.autoencoder.decoder == "adain")
            motion = motion.first(options.frames - done)
            end = last_frame(motion)
            if texture is None and options.speckle > 0:
                texture = still.texture(motion.grid)
                correlation = self.info.speckle.at(self._persistence, 1 / fps)
                loop = options.frames if options.loop else None
                noise = SpeckleNoise(seeds, texture, still.small.shape[-1], correlation, loop)
            length = max(1, self.frames_together // together)
            for first in range(0, motion.n_frames, length):
                part = motion.frames(first, first + length)
                here = slice(done + first, done + first + part.n_frames)
                out = still.compose(render(still.filled, part, noise, texture, mode=options.texture))
                moved = None if self.mask is None else self._moved(self.mask, part)
                for sample in range(together):
                    torch.from_numpy(frames[sample, here]).copy_(out[sample])
                    if masks is not None and moved is not None:
                        torch.from_numpy(masks[sample, here]).copy_(moved[sample])
            flows.append(motion.flow.transpose(1, 2).cpu().numpy())
            done += motion.n_frames
            if segment + 1 < count:
                seen, _ = seen_by_networks(frames[0, done - 1], Fit(self.info.fit, self.info.autoencoder.size))
        frames[:, 0] = still.picture
        if self.mask is not None and masks is not None:
            masks[:, 0] = self.mask
        flow = np.concatenate(flows, axis=1)
        return [
            GeneratedClip(frames[k], None if masks is None else masks[k], fps, seed, flow[k])
            for k, seed in enumerate(seeds)
        ]

    def _moved(self, mask: Mask, part: Motion) -> Tensor:
        """Carry the mask along: (B, T, H, W) bool."""
        given = torch.from_numpy(mask)[None, None].to(self.device).expand(len(part.flow), -1, -1, -1)
        return warp_mask(given, part.at_size(self.still.size).flow)[:, 0]

    @property
    def frames_together(self) -> int:
        """Frames that are rendered together, of one clip or several."""
        pixels = _PIXELS_AT_ONCE.get(self.device.type, _PIXELS_AT_ONCE["cpu"])
        return max(1, pixels // (self.still.size[0] * self.still.size[1]))

    @cached_property
    def _persistence(self) -> Tensor | None:
        """What the first stage says of the speckle by place of the still: (1, 1, h, w), or None."""
        predicted = self.autoencoder.persistence(self.still.seen.to(self.device))
        return None if predicted is None else self.still.map_from_square(predicted)
