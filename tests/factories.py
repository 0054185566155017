"""Small real objects for tests: untrained weights and stills with texture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from us_i2v import __version__
from us_i2v.models.autoencoder import Autoencoder, AutoencoderConfig
from us_i2v.models.cinn import CINNConfig, ConditionalFlow
from us_i2v.models.conditioner import ConditionerConfig
from us_i2v.models.denoiser import DenoiserConfig, build_denoiser
from us_i2v.weights import Header, ProcessConfig, save_weights

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.types import Image

SMALL_AUTOENCODER = AutoencoderConfig(
    size=32,
    latent_channels=4,
    spatial_strides=(2, 1, 1, 1),
    encoder_widths=(8, 8, 8, 8),
    decoder_widths=(8, 8, 8),
    still_widths=(8, 8, 8),
    correlation_radius=1,
    correlation_channels=8,
)
SMALL_DENOISER = DenoiserConfig(width=8, multipliers=(1, 2), blocks=1, heads=2, still_widths=(8, 8))

SMALL_VECTOR = SMALL_AUTOENCODER.model_copy(update={"latent_mode": "vector", "latent_channels": 8})
SMALL_CINN = CINNConfig(blocks=3, hidden=16, depth=1, conditioner=ConditionerConfig(channels=8, size=32, widths=(8, 8)))


def small_weights(
    path: Path,
    *,
    labels: tuple[str, ...] = (),
    seed: int = 0,
    moving: bool = True,
    controls: bool = False,
    denoiser: dict[str, object] | None = None,
) -> Path:
    """Write untrained weights of both stages; with `moving`, the zero-initialised heads get random values.

    With `controls`, pressure and slide are conditions; `denoiser` holds changes of the denoiser's configuration.
    """
    torch.manual_seed(seed)
    autoencoder = Autoencoder(SMALL_AUTOENCODER)
    denoiser_config = SMALL_DENOISER.model_copy(update={"n_labels": len(labels), **(denoiser or {})})
    if controls:
        denoiser_config = denoiser_config.model_copy(update={"pressure": True, "slide": True})
    network = build_denoiser(denoiser_config, SMALL_AUTOENCODER.latent_shape)
    tensors = {f"autoencoder.{k}": v for k, v in autoencoder.state_dict().items()}
    tensors |= {f"denoiser.{k}": v for k, v in network.state_dict().items()}
    if moving:
        for name in tensors:
            if not bool(tensors[name].any()):
                tensors[name] = torch.randn_like(tensors[name]) * 0.2
    channels = SMALL_AUTOENCODER.latent_channels
    tensors |= {"latent.mean": torch.zeros(channels), "latent.sd": torch.ones(channels)}
    header = Header(
        kind="lddm",
        package_version=__version__,
        autoencoder=SMALL_AUTOENCODER,
        denoiser=denoiser_config,
        process=ProcessConfig(),
        labels=labels,
        frame_interval_s=0.1,
        pressure_median=0.02 if controls else None,
        slide_median=0.03 if controls else None,
        training_groups=("group-1",),
    )
    save_weights(path, header, tensors)
    return path


def small_cinn_weights(path: Path, *, seed: int = 0, interval: bool = True, decoder: str = "warp") -> Path:
    """Write untrained weights of a cINN over a latent vector, every parameter moved off its start."""
    torch.manual_seed(seed)
    shape = SMALL_VECTOR.model_copy(update={"decoder": decoder})
    config = SMALL_CINN.model_copy(update={"interval": interval})
    parts = {"autoencoder": Autoencoder(shape), "cinn": ConditionalFlow(config, shape.latent_shape)}
    tensors = {
        f"{prefix}.{name}": value + torch.randn_like(value) * 0.1
        for prefix, module in parts.items()
        for name, value in module.state_dict().items()
    }
    tensors |= {"latent.mean": torch.zeros(8), "latent.sd": torch.ones(8)}
    header = Header(kind="cinn", package_version=__version__, autoencoder=shape, cinn=config, frame_interval_s=0.1)
    save_weights(path, header, tensors)
    return path


def textured_still(height: int = 60, width: int = 77, *, colour: bool = False, seed: int = 0) -> Image:
    """A still of smooth random texture, 20..230 gray."""
    rng = np.random.Generator(np.random.PCG64(seed))
    picture = ndimage.gaussian_filter(rng.standard_normal((height, width)), 1.5)
    picture = 125 + 105 * picture / np.abs(picture).max()
    gray = picture.round().astype(np.uint8)
    return np.stack([gray, gray // 2 + 30, gray // 3 + 60], axis=2) if colour else gray
