"""Video auto-encoder: encoder + one of the decoders, KL-regularised.

Stage 1 of LDDM (Chen et al. 2024, section 2.1). The decoder is told the still; the latent only has to hold
what moves. The standardised latent is what the denoiser models; its statistics live in the weights file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from us_i2v.config import Config
from us_i2v.models.adain import AdaINDecoder
from us_i2v.models.encoder import VideoEncoder
from us_i2v.models.motion import Motion
from us_i2v.models.warp import WarpDecoder


class AutoencoderConfig(Config):
    """Shape of the auto-encoder."""

    decoder: Literal["warp", "adain"] = Field("warp", description="How frames are made out of the latent.")
    size: int = Field(128, ge=32, le=512, multiple_of=16, description="Model's picture size, pixels.")
    n_frames: Literal[16] = Field(16, description="Frames in a clip, the anchor included.")
    latent_mode: Literal["map", "vector"] = Field("map", description="Latent map, or one vector (as cINN).")
    latent_channels: int = Field(8, ge=1, le=512, description="Channels of the latent.")
    temporal_strides: tuple[int, int, int, int] = Field((1, 2, 2, 2), description="Stride in time by stage.")
    spatial_strides: tuple[int, int, int, int] = Field((2, 2, 1, 1), description="Stride in space by stage.")
    encoder_widths: tuple[int, int, int, int] = Field((16, 32, 64, 96), description="Channels by stage.")
    decoder_widths: tuple[int, int, int] = Field((96, 48, 16), description="Channels, coarse to fine.")
    still_widths: tuple[int, int, int] = Field((16, 24, 32), description="Still features, fine to coarse.")
    correlation_radius: int = Field(3, ge=0, le=8, description="Radius of the correlation in cells; 0 = off.")
    correlation_channels: int = Field(32, ge=1, le=256, description="Channels that the correlation is projected to.")
    block_search: bool = Field(False, description="The encoder is also told the displacement that a search finds.")
    time_upsampling: Literal["repeat", "learned"] = Field(
        "repeat", description="How the warp decoder makes frames of the latent's steps in time."
    )
    residual: bool = Field(True, description="The warp decoder adds a gated residual; false: flow and gain alone.")
    speckle_map: bool = Field(False, description="The warp decoder predicts by place how long speckle lasts.")

    later: ClassVar[tuple[str, ...]] = ("block_search", "time_upsampling", "residual", "speckle_map")

    @model_validator(mode="after")
    def _check_strides(self) -> Self:
        total_t, total_s = 1, 2
        for s_t, s_s in zip(self.temporal_strides, self.spatial_strides, strict=True):
            total_t, total_s = total_t * s_t, total_s * s_s
        if self.n_frames % total_t or self.n_frames // total_t not in (1, 2, 4):
            raise ValueError(f"temporal strides reduce {self.n_frames} frames by {total_t}; 4, 8 or 16 is needed")
        if self.size % total_s:
            raise ValueError(f"spatial strides reduce by {total_s}, which does not divide the size {self.size}")
        if (self.correlation_radius or self.block_search) and self.spatial_strides[0] != 2:
            raise ValueError("correlation and block search enter at 1/4 size: the first spatial stride must be 2")
        if self.time_upsampling == "learned" and self.decoder == "adain":
            raise ValueError("the AdaIN decoder interpolates in time; learned time up-sampling needs decoder = 'warp'")
        if not self.residual and self.decoder == "adain":
            raise ValueError(
                "the AdaIN decoder paints all frames as a residual; residual = false needs decoder = 'warp'"
            )
        if self.speckle_map and (self.decoder == "adain" or not self.residual):
            raise ValueError("a map of the speckle's correlation needs decoder = 'warp' and residual = true")
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(C_z, T_z, H_z, W_z) of one clip's latent."""
        if self.latent_mode == "vector":
            return self.latent_channels, 1, 1, 1
        time: int = self.n_frames
        side = self.size // 2
        for s_t, s_s in zip(self.temporal_strides, self.spatial_strides, strict=True):
            time, side = time // s_t, side // s_s
        return self.latent_channels, time, side, side


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over the latent: mean and log variance, each (B, C_z, T_z, H_z, W_z)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Reparametrised sample: mean + sd * noise."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """KL divergence to N(0, I) by sample, in nats a latent number: (B,)."""
        kl = 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)
        return kl.flatten(1).mean(dim=1)


class Autoencoder(nn.Module):
    """Encoder and decoder behind two calls: `encode(video)` and `decode(z, still)`."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VideoEncoder(config)
        self.decoder: nn.Module = WarpDecoder(config) if config.decoder == "warp" else AdaINDecoder(config)

    def encode(self, video: Tensor) -> Posterior:
        """(B, 1, T, H, W) in 0..1 at the model's size -> posterior over the latent."""
        return Posterior(*self.encoder(video))

    def decode(self, z: Tensor, still: Tensor) -> Motion:
        """Latent (unstandardised) and still (B, 1, H, W) in 0..1 -> `Motion`."""
        motion: Motion = self.decoder(z, still)
        return motion

    def persistence(self, still: Tensor) -> Tensor | None:
        """Still (B, 1, H, W) in 0..1 -> logit of the speckle's correlation from frame to frame, (B, 1, H/2, W/2).

        None if the model predicts none (`AutoencoderConfig.speckle_map`).
        """
        if not self.config.speckle_map:
            return None
        logits: Tensor = self.decoder.persistence(still)  # type: ignore[operator]
        return logits
