"""Fitting of a privacy filter: train the re-identification network, then measure where strangers end.

    1. The siamese network (`models.siamese`) on pairs of pictures of one clip, each changed on its own: shifted,
       zoomed, mirrored, brightened, blurred, with noise. Training clips only.
    2. The training clips as the filter sees them: `reference.safetensors`.
    3. Each held-out window's largest similarity to them, by measure; the thresholds are quantiles of these
       (`privacy.calibration`).

A held-out group is nobody of the training set, so its clips are no copies; `training.privacy_sides` makes sure of that.
`privacy.safetensors` is written last: where it lies, all of the run does. Source: see `metrics.copies`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.data.splits import in_turn
from us_i2v.data.training_clips import ClipsConfig, batch_seed
from us_i2v.devices import choose_device
from us_i2v.errors import DataError
from us_i2v.latents_file import latent_space
from us_i2v.metrics.copies import pearson, ranking_auc
from us_i2v.models.siamese import SiameseConfig, SiameseNetwork, contrastive_loss
from us_i2v.privacy import (
    FILTER,
    MEASURES,
    REFERENCE,
    Comparer,
    Held,
    PrivacyFilter,
    PrivacyHeader,
    load_reference,
    look,
    save_filter,
    save_reference,
    stored_windows,
    windows_of,
)
from us_i2v.ranks import Ranks
from us_i2v.seeding import derive_seed, numpy_generator
from us_i2v.training.loop import CHECKPOINT, OptimiserConfig, fingerprint, first_rank_alone, train
from us_i2v.training.privacy_sides import check_sides
from us_i2v.training.runs import gather_clips, start_run
from us_i2v.training.state import averaged_weights
from us_i2v.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.data.training_clips import StoredClip
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.privacy import Views
    from us_i2v.training.report import Reporter

_VALIDATED_ON = 64
_SHIFT, _ZOOM, _NOISE = 0.2, 0.12, 0.03
"""Largest shift (the picture is 2 wide), zoom, and deviation of the noise of training pictures."""


class PrivacyOptimiser(OptimiserConfig):
    """Steps, batch, learning rate and the like, with this network's defaults."""

    steps: int = Field(1500, ge=1, description="Optimiser steps in all.")
    batch_size: int = Field(32, ge=2, description="Pairs a step, over all ranks together.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate of Adam.")
    warmup: int = Field(100, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(1e-2, ge=0, description="Decoupled weight decay (AdamW).")
    ema: float = Field(0.99, ge=0, lt=1, description="Decay of the weight average.")
    precision: Literal["bf16", "fp32"] = Field("fp32", description="Autocast precision, on CPU and GPU.")
    validate_every: int = Field(250, ge=1, description="Steps an epoch: validation, checkpoint.")


class PrivacyTraining(Config):
    """Everything that `us-i2v privacy fit` can be told."""

    network: SiameseConfig = SiameseConfig()
    clips: ClipsConfig = ClipsConfig()
    optimiser: PrivacyOptimiser = PrivacyOptimiser()
    temperature: float = Field(0.1, gt=0, le=10, description="Divides the similarities in the loss.")
    windows: int = Field(4, ge=1, le=64, description="Windows a clip that are compared, at most.")
    quantile: float = Field(0.95, gt=0.5, lt=1, description="Share of held-out clips below the thresholds.")
    notes: str = Field("", description="Free text for the file's header: data and licences.")


class _Step(nn.Module):
    """Loss of one batch."""

    def __init__(self, config: PrivacyTraining) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.network = SiameseNetwork(config.network)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: pictures (2 B, 1, S, S), the first of all pairs and then the second; group (B,)."""
        first, second = self.network(batch["pictures"]).chunk(2)
        loss, found = contrastive_loss(first, second, batch["group"], self.temperature)
        return loss, {"recall": found}


class PrivacyTask:
    """The re-identification network as a `training.loop.Task`."""

    def __init__(
        self, config: PrivacyTraining, train_clips: Sequence[StoredClip], held: Sequence[StoredClip], length: int
    ) -> None:
        self.config, self.clips, self.held, self.length = config, list(train_clips), list(held), length
        names = sorted({clip.group for clip in self.clips})
        self.group_of = {name: number for number, name in enumerate(names)}
        torch.manual_seed(derive_seed(config.optimiser.seed, "initial weights"))
        self.module: nn.Module = _Step(config)

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Task.batch`: every clip of a batch gives one pair, as far as there are enough clips."""
        seed, size = self.config.optimiser.seed, self.config.optimiser.batch_size
        rng = numpy_generator(batch_seed(seed, step), "pairs")
        order = np.resize(rng.permutation(len(self.clips)), size)
        places = rng.random((size, 2))
        mine = range(rank, size, world)
        chosen = [self.clips[order[k]] for k in mine]
        sides = [
            torch.stack([_picture(clip, places[k, side]) for k, clip in zip(mine, chosen, strict=True)])
            for side in (0, 1)
        ]
        generator = torch.Generator().manual_seed(derive_seed(batch_seed(seed, step), "changes", rank))
        pictures = changed(torch.cat(sides), self.config.network.size, self.config.clips, generator)
        group = torch.tensor([self.group_of[clip.group] for clip in chosen])
        return {"pictures": pictures, "group": group}, [clip.name for clip in chosen]

    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Tell held-out pairs of one clip, a third of it apart, from pairs of two groups: {"auc"}; {} if impossible."""
        return {} if math.isnan(value := held_auc(module.network, self.held)) else {"auc": value}  # type: ignore[arg-type]

    def export(self, module: nn.Module) -> None:
        """Write nothing yet: the filter's file needs the thresholds, and takes the network from the checkpoint."""


def changed(pictures: Tensor, size: int, config: ClipsConfig, generator: torch.Generator) -> Tensor:
    """Change pictures (N, 1, H, W) in 0..1 at random, each on its own, and bring them to (N, 1, size, size)."""
    n = len(pictures)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((n, *shape), generator=generator)

    small = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)
    zoom = draw(1 - _ZOOM, 1 + _ZOOM)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0) if config.flip else torch.ones(n)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = zoom * mirror, zoom
    matrix[:, :, 2] = draw(-_SHIFT, _SHIFT, 2)
    grid = F.affine_grid(matrix, [n, 1, size, size], align_corners=False)
    moved = F.grid_sample(small, grid, mode="bilinear", padding_mode="border", align_corners=False)
    blurred = F.avg_pool2d(moved, 3, 1, 1, count_include_pad=False)
    share = draw(0, 1, 1, 1, 1)
    soft = moved * (1 - share) + blurred * share
    bright = soft.clamp_min(0) ** draw(0.7, 1.4, 1, 1, 1) * draw(0.8, 1.2, 1, 1, 1)
    noise = torch.randn(bright.shape, generator=generator) * draw(0, _NOISE, 1, 1, 1)
    return (bright + noise).clamp(0, 1)


@torch.no_grad()
def held_auc(network: SiameseNetwork, clips: Sequence[StoredClip]) -> float:
    """Return the AUC of held-out pairs, NaN if there are no two groups; see `PrivacyTask.validate`."""
    chosen = spread_over_groups(clips, _VALIDATED_ON)
    groups = np.array([clip.group for clip in chosen])
    if len(set(groups)) < 2:
        return math.nan
    device = next(network.parameters()).device
    first, second = (
        network(torch.stack([_picture(clip, place) for clip in chosen]).to(device)) for place in (1 / 3, 2 / 3)
    )
    alike = pearson(first, second).cpu().numpy()
    return ranking_auc(np.diagonal(alike), alike[groups[:, None] != groups[None]])


def spread_over_groups(clips: Sequence[StoredClip], count: int) -> list[StoredClip]:
    """Return up to `count` clips: the first one of every group, then the second ones, and so on."""
    return [clips[k] for k in in_turn([clip.group for clip in clips])[:count]]


def _picture(clip: StoredClip, place: float) -> Tensor:
    """Return the frame at `place` in 0..1 of a clip, (1, S, S) in 0..1."""
    stored = np.load(clip.frames, mmap_mode="r", allow_pickle=False)
    return torch.from_numpy(stored[min(int(place * len(stored)), len(stored) - 1)].astype(np.float32) / 255)[None]


def fit_privacy(
    data: Sequence[Path],
    weights: Path | str | None,
    out: Path,
    config: PrivacyTraining,
    *,
    resume: bool = False,
    reporter: Reporter,
    device: str = "auto",
) -> None:
    """Fit a privacy filter.

    Args:
        data: The data that a generator was, or is to be, trained on; its split is used, else groups are drawn.
        weights: Weights whose auto-encoder gives the latents; None for the bundled ones.
        out: Run folder: config.json, checkpoint, metrics.jsonl, cache/, reference.safetensors, privacy.safetensors.
        config: Settings.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Raises:
        DataError: Fewer than two training groups, or no held-out one, or one that the generator has seen, see
            `training.privacy_sides`.
        WeightsError: The weights cannot be read.
        TrainingError: The loss is not finite.
    """
    where = choose_device(device)
    opened = load_weights(weights)
    clips = config.clips.model_copy(update={"fit": opened.header.fit})
    with first_rank_alone():
        start_run(out, config, resume=resume)
        size, seed = opened.header.autoencoder.size, config.optimiser.seed
        train_clips, held = gather_clips(data, out / "cache", size, clips, seed, reporter)
    groups = {clip.group for clip in train_clips}
    if len(groups) < 2 or not held:
        raise DataError(
            f"There are {len(groups)} training groups and {len(held)} held-out clips; 2 and 1 are needed.",
            "Give clips of more patients, or a manifest.csv that states groups.",
        )
    check_sides(opened.header, data, train_clips, held, reporter)
    autoencoder = opened.autoencoder().to(where)
    task = PrivacyTask(config, train_clips, held, autoencoder.config.n_frames)
    if not (out / CHECKPOINT).exists():
        (out / FILTER).unlink(missing_ok=True)  # of a run whose checkpoint was removed
    sides = [[(c.sha256, c.group, c.name, c.interval) for c in side] for side in (train_clips, held)]
    identity = json.dumps([opened.sha256, *sides])
    train(
        task,
        out,
        config.optimiser,
        fingerprint=fingerprint(config.dump(), identity),
        resume=resume,
        reporter=reporter,
        device=where,
        name="privacy",
    )
    whole = (out / FILTER).exists() and (out / REFERENCE).exists()  # of this run: the checkpoint's fingerprint agreed
    if Ranks.of_environment().first and not whole:
        step = _Step(config)
        step.load_state_dict(averaged_weights(out / CHECKPOINT))
        network = step.network.eval().requires_grad_(False)
        _finish(out, config, clips, network, autoencoder, train_clips, held, where, reporter)


def _finish(
    out: Path,
    config: PrivacyTraining,
    clips: ClipsConfig,
    network: SiameseNetwork,
    autoencoder: Autoencoder,
    train_clips: Sequence[StoredClip],
    held: Sequence[StoredClip],
    device: torch.device,
    reporter: Reporter,
) -> None:
    """Look at training and held-out windows, compare them and write both files."""
    length = autoencoder.config.n_frames

    def seen(chosen: Sequence[StoredClip], what: str) -> Views:
        def progress(done: int) -> None:
            if done % 200 == 0:
                reporter.message(f"{what}: {done} windows")

        return look(stored_windows(chosen, clips, length, config.windows), autoencoder, device, progress=progress)

    reporter.message("looking at the training clips")
    digest = save_reference(out / REFERENCE, seen(train_clips, "training"))
    reference = load_reference(out / REFERENCE, digest)
    known = reference.latents[reference.has_latent]
    centre = known.mean(0) if len(known) else torch.zeros(reference.latents.shape[1])
    views = seen(held, "held out")
    alike = Comparer(network, centre, reference, device).nearest(views)
    counts = [len(windows_of(clip, clips, length, config.windows)) for clip in held]
    of_clip = np.repeat(np.arange(len(held)), counts)
    of_group = np.unique(np.array(views.groups), return_inverse=True)[1]
    found = {}
    for name in MEASURES:
        best = alike[name].similarity
        there = np.isfinite(best)
        if there.any():
            found[name] = Held(best[there].astype(np.float32).astype(np.float64), of_clip[there], of_group[there])
            reporter.message(_told(name, found[name], config))
    if "siamese" not in found:
        raise DataError(
            "All pictures of a side are blank, so there is nothing to compare.", "Look at the clips (`us-i2v inspect`)."
        )
    auc = held_auc(network, held)
    header = PrivacyHeader(
        package_version=__version__,
        network=config.network,
        clips=clips,
        size=autoencoder.config.size,
        n_frames=length,
        windows=config.windows,
        latent_space=latent_space(autoencoder),
        quantile=config.quantile,
        held_auc=None if math.isnan(auc) else auc,
        training_groups=tuple(sorted({clip.group for clip in train_clips})),
        clip_sha256=tuple(sorted({clip.sha256 for clip in train_clips})),
        held_groups=tuple(sorted({clip.group for clip in held})),
        held_sha256=tuple(sorted({clip.sha256 for clip in held})),
        reference_sha256=digest,
        notes=config.notes,
    )
    save_filter(out / FILTER, PrivacyFilter(header, network.cpu(), found, centre))


def _told(name: str, held: Held, config: PrivacyTraining) -> str:
    """Return a line about a measure: its thresholds for a clip of one window, and of as many as are compared."""
    low, high = (held.threshold(count, config.quantile) for count in (1, config.windows))
    return (
        f"{name}: threshold {low:.4g} for one window, {high:.4g} for {config.windows}, from {held.n_clips} clips "
        f"({len(held.similarities)} windows) of {held.n_groups} groups"
    )
