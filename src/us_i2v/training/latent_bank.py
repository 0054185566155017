"""Encoded windows in files: posteriors, stills, and what is measured on each window's motion.

z ~ q(z | clip) comes from the frozen auto-encoder of stage 1. Windows are encoded once; a step of the second stage
then costs that stage only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from us_i2v.data.atomic import write_bytes
from us_i2v.data.training_clips import FLOW_STRIDE, ClipSampler
from us_i2v.errors import TrainingError, WeightsError
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.controls import measure_controls
from us_i2v.models.denoiser import UNKNOWN_LABEL
from us_i2v.training.runs import stack_windows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from us_i2v.training.report import Reporter

_ENCODE_BATCH = 4


@dataclass(frozen=True)
class LatentBank:
    """Encoded windows, memory-mapped: posterior mean and sd, still, strength and spacing.

    Attributes:
        mean: float16 (N, *latent).
        sd: float16 (N, *latent).
        still: uint8 (N, S, S).
        scalars: float32 (N, 3): flow magnitude in model pixels, seconds between frames, class number.
        names: File by window.
        controls: float32 (N, 2): pressure and slide as `models.controls` measures them, NaN where the flow is not
            known; None where they were not asked for.
    """

    mean: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
    sd: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
    still: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    scalars: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    names: list[str]
    controls: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None

    def draw(self, rows: Sequence[int], generator: torch.Generator) -> Tensor:
        """Sample the posteriors of some windows: (len(rows), *latent), float32."""
        mean = torch.from_numpy(self.mean[list(rows)].astype(np.float32))
        sd = torch.from_numpy(self.sd[list(rows)].astype(np.float32))
        return mean + sd * torch.randn(mean.shape, generator=generator)

    def stills(self, rows: Sequence[int]) -> Tensor:
        """Frame 0 of some windows: (len(rows), 1, S, S) in 0..1."""
        return torch.from_numpy(self.still[list(rows)].astype(np.float32) / 255)[:, None]

    def known(self, rows: Sequence[int]) -> Tensor:
        """Flow magnitude, interval and class of some windows: (len(rows), 3)."""
        return torch.from_numpy(self.scalars[list(rows)].copy())


@torch.no_grad()
def encode_windows(
    autoencoder: Autoencoder,
    sampler: ClipSampler,
    count: int,
    folder: Path,
    labels: Sequence[str],
    device: torch.device,
    reporter: Reporter,
    *,
    bf16: bool,
    measured: bool = False,
) -> LatentBank:
    """Encode `count` randomly drawn windows into files of `folder`, or reuse them if they are complete.

    With `measured`, pressure and slide of every window are kept too.
    """
    names_file = folder / "names.json"
    shape = autoencoder.config.latent_shape
    size = autoencoder.config.size
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "mean": (np.float16, (count, *shape)),
        "sd": (np.float16, (count, *shape)),
        "still": (np.uint8, (count, size, size)),
        "scalars": (np.float32, (count, 3)),
    }
    if measured:
        layout["controls"] = (np.float32, (count, 2))
    if not names_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            key: np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=dtype, shape=full)
            for key, (dtype, full) in layout.items()
        }
        names: list[str] = []
        for first in range(0, count, _ENCODE_BATCH):
            part = range(first, min(first + _ENCODE_BATCH, count))
            windows = [sampler.draw(k, 0) for k in part]
            stacked = stack_windows(windows, size)
            video = stacked["video"].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                posterior = autoencoder.encode(video)
                flow = decoded_flow(autoencoder, posterior.mean, video[:, :, 0])
            rows = slice(first, first + len(part))
            arrays["mean"][rows] = posterior.mean.cpu().numpy()
            arrays["sd"][rows] = (0.5 * posterior.log_variance).exp().cpu().numpy()
            arrays["still"][rows] = (video[:, 0, 0] * 255).round().cpu().numpy()
            arrays["scalars"][rows, 0] = 0.0 if flow is None else flow_magnitude(flow, size).cpu().numpy()
            if measured:
                known = stacked["flow"] / FLOW_STRIDE if flow is None else flow
                arrays["controls"][rows] = measure_controls(known).cpu().numpy()
            arrays["scalars"][rows, 1] = [w.interval for w in windows]
            arrays["scalars"][rows, 2] = [
                labels.index(w.label) if w.label in labels else UNKNOWN_LABEL for w in windows
            ]
            names += [w.name for w in windows]
            if first and (first // _ENCODE_BATCH) % 100 == 0:
                reporter.message(f"encoded {first} of {count} windows")
        for array in arrays.values():
            array.flush()
        write_bytes(names_file, json.dumps(names).encode())
    loaded = {
        key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        for key in layout
        if (folder / f"{key}.npy").exists()
    }
    bad = [key for key, (_, full) in layout.items() if key not in loaded or loaded[key].shape != full]
    if bad:
        raise WeightsError(f"'{folder}' holds latents of another run ('{bad[0]}').", "Delete it and start again.")
    return LatentBank(names=json.loads(names_file.read_text(encoding="utf-8")), **loaded)


def decoded_flow(autoencoder: Autoencoder, latent: Tensor, still: Tensor) -> Tensor | None:
    """Flow that a latent stands for, (B, 2, T, h, w) in cells; None, without decoding, where the decoder paints."""
    return None if autoencoder.config.decoder == "adain" else autoencoder.decode(latent, still).flow.float()


def flow_magnitude(flow: Tensor, size: int) -> Tensor:
    """Mean length of a flow (B, 2, T, h, w) in cells, (B,), in pixels of a picture of `size`."""
    return flow.square().sum(1).sqrt().mean((1, 2, 3)) * size / flow.shape[4]


def control_medians(controls: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
    """Units of pressure and slide: the medians of their absolute values, (2,), at least 1e-4.

    Args:
        controls: (N, 2), NaN where not known.

    Raises:
        TrainingError: No window's flow is known.
    """
    known = controls[np.isfinite(controls).all(axis=1)]
    if not len(known):
        raise TrainingError(
            "Pressure and slide cannot be measured: the decoder paints, and no training clip has a known flow.",
            "Use a warp decoder, or set model.pressure=false and model.slide=false.",
        )
    return torch.from_numpy(np.maximum(np.median(np.abs(known), axis=0), 1e-4).astype(np.float32))


def latent_statistics(bank: LatentBank) -> tuple[Tensor, Tensor]:
    """Mean and sd of sampled latents by channel, each (1, C_z, 1, 1, 1): E[z], sqrt(Var[mean] + E[sd^2])."""
    total, square, variance = 0.0, 0.0, 0.0
    count = len(bank.names)
    for first in range(0, count, 256):
        mean = np.asarray(bank.mean[first : first + 256], np.float64)
        total = total + mean.mean(axis=(2, 3, 4)).sum(axis=0)
        square = square + np.square(mean).mean(axis=(2, 3, 4)).sum(axis=0)
        sd = np.asarray(bank.sd[first : first + 256], np.float64)
        variance = variance + np.square(sd).mean(axis=(2, 3, 4)).sum(axis=0)
    center = np.asarray(total) / count
    spread = np.sqrt(np.asarray(square) / count - center**2 + np.asarray(variance) / count)
    reshape = (1, -1, 1, 1, 1)
    return torch.tensor(center).float().reshape(reshape), torch.tensor(spread).float().reshape(reshape)
