"""Conditional denoisers behind one interface: their configuration, and which kind is built.

Stage 2 of LDDM (Chen et al. 2024, section 2.2). Two networks take the same conditions (`conditioning`):

    unet          factorised convolutions, attention at the coarsest level
    transformer   spatial and temporal attention in turn, adaLN-zero
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from us_i2v.config import Config
from us_i2v.errors import ConfigError
from us_i2v.models.conditioning import UNKNOWN_LABEL, Conditions, Denoiser
from us_i2v.models.transformer import SpaceTimeTransformer
from us_i2v.models.unet import UNet

__all__ = ["UNKNOWN_LABEL", "Conditions", "Denoiser", "DenoiserConfig", "build_denoiser"]


class DenoiserConfig(Config):
    """Shape of the denoiser."""

    kind: Literal["unet", "transformer"] = Field("unet", description="Which network.")
    width: int = Field(
        96, ge=8, le=1024, multiple_of=8, description="Channels at full latent size; transformer: of a token."
    )
    multipliers: tuple[int, ...] = Field(
        (1, 2), min_length=1, max_length=4, description="U-Net: width factor by level."
    )
    blocks: int = Field(2, ge=1, le=4, description="U-Net: residual blocks a level.")
    depth: int = Field(4, ge=1, le=32, description="Transformer: pairs of a spatial and a temporal block.")
    patch: int = Field(2, ge=1, le=8, description="Transformer: side of a token in cells of the latent.")
    heads: int = Field(4, ge=1, le=16, description="Attention heads; U-Net: at the coarsest level.")
    still_widths: tuple[int, ...] = Field((12, 24, 48), description="Still features, fine to coarse.")
    n_labels: int = Field(0, ge=0, le=1000, description="Class labels that can be given; 0 = none.")
    dropout: float = Field(0.1, ge=0, le=1, description="Probability of hiding each condition in training.")
    pressure: bool = Field(False, description="Compression at the clip's end as a condition.")
    slide: bool = Field(False, description="Sideways displacement at the clip's end as a condition.")
    step_size: bool = Field(False, description="Sampling step's size as a condition; set by process.shortcut.")

    later: ClassVar[tuple[str, ...]] = ("pressure", "slide", "step_size", "kind", "depth", "patch")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.width}")
        return self


def build_denoiser(config: DenoiserConfig, latent_shape: tuple[int, int, int, int]) -> Denoiser:
    """Build the network that a configuration asks for, with random weights; its output starts at zero.

    Args:
        config: Its shape.
        latent_shape: (C_z, T_z, H_z, W_z) of one clip's latent.

    Raises:
        ConfigError: The latent's side cannot be halved as often as wanted, or cut into patches.
    """
    side = latent_shape[2]
    if config.kind == "transformer":
        if side % config.patch:
            raise ConfigError(
                f"A latent of {side} x {side} cells is not made of patches of {config.patch} x {config.patch}.",
                "Set model.patch=1.",
            )
        return SpaceTimeTransformer(config, latent_shape)
    halvings = len(config.multipliers) - 1
    if side % 2**halvings:
        raise ConfigError(
            f"A latent of {side} x {side} cells cannot be halved {halvings} times.",
            "Give fewer model.multipliers; [1] halves none.",
        )
    return UNet(config, latent_shape)
