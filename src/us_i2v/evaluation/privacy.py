"""Do generated clips copy clips of the training set?

Every window of a clip is compared with every training window (`privacy.Comparer`); a clip copies by a measure if one of
its windows is more alike to a training window than all but a share 1 - quantile of held-out clips of as many windows
are to theirs (`privacy.calibration`). So that share of strangers' clips is flagged too, by each measure: a number of
copies means something beside it.

The first frame of an image-to-video clip is a still that somebody gave. Whether it is itself a near-copy of a training
picture is found apart (`privacy_stills`): a clip whose pictures are flagged only because its still is shows no memory
of the generator. Latents hold motion and no still, so what they flag always counts.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from us_i2v.data.mixing import find_seen
from us_i2v.devices import choose_device
from us_i2v.errors import DataError, WeightsError
from us_i2v.evaluation.privacy_clips import Queries, counted, query_windows, training_views
from us_i2v.evaluation.privacy_stills import SeedMatch, seed_matches
from us_i2v.latents_file import latent_space
from us_i2v.metrics.copies import Array, share_as_high, share_interval
from us_i2v.privacy import Comparer, PrivacyFilter, Views, load_filter, look
from us_i2v.weights import load_weights

if TYPE_CHECKING:
    from us_i2v.metrics.intervals import Interval


@dataclass(frozen=True)
class Match:
    """The training window that is most alike to a clip, by one measure.

    Attributes:
        similarity: -1..1.
        clip: Name of the training clip.
        group: Its group.
        windows: Windows of the clip that were compared; their largest similarity counts.
        threshold: For clips of as many windows.
        strangers: Share of strangers of as many windows that is above it, by construction.
        as_high: Share of held-out clips of as many windows that are at least as alike to theirs, see
            `metrics.copies.share_as_high`.
        copy: Whether the similarity is above the threshold.
    """

    similarity: float
    clip: str
    group: str
    windows: int
    threshold: float
    strangers: float
    as_high: float
    copy: bool


@dataclass(frozen=True)
class Checked:
    """What was found about one clip.

    Attributes:
        name: Its name.
        group: Its group: the patient whose still it was made from, where a manifest says so.
        matches: By measure; without "latent" where there is none.
        seed: None if its first frame is no near-copy.
        known_group: Whether the filter was fitted on that group.
    """

    name: str
    group: str
    matches: dict[str, Match]
    seed: SeedMatch | None
    known_group: bool


@dataclass(frozen=True)
class Count:
    """How many clips copy, with an interval over groups."""

    share: Interval
    copies: int


@dataclass(frozen=True)
class MeasureCount(Count):
    """How many clips copy by a measure.

    Attributes:
        by_still: How many of the copies have a still that is a near-copy; None for latents, which hold no still.
        strangers: Share of strangers' clips that would be flagged, by construction.
        thresholds: The lowest and the highest one; clips of more windows have higher ones.
    """

    by_still: int | None
    strangers: float
    thresholds: tuple[float, float]


@dataclass(frozen=True)
class PrivacyResult:
    """Everything that a check finds.

    Attributes:
        settings: What was compared.
        fitted: The filter.
        clips: By clip.
        counts: By measure.
        seeds: Clips whose first frame is a near-copy; None where no pictures were given.
        notes: What the reader must know.
    """

    settings: dict[str, Any]
    fitted: PrivacyFilter
    clips: tuple[Checked, ...]
    counts: dict[str, MeasureCount]
    seeds: Count | None
    notes: tuple[str, ...]

    @property
    def largest_share(self) -> float:
        """Largest share of copies by any measure."""
        return max(count.share.mean for count in self.counts.values())


def check_privacy(
    queries: Queries,
    run: Path,
    weights: Path | str | None = None,
    *,
    train: Sequence[Path] = (),
    device: str = "auto",
    progress: Callable[[int, int, str], None] | None = None,
) -> PrivacyResult:
    """Check clips, latents or clips that are drawn for it against a training set.

    Args:
        queries: See `Queries`.
        run: Run folder of `us-i2v privacy fit`.
        weights: The weights that the filter was fitted with; they also draw `samples`.
        train: Training data, read again instead of what the run folder keeps of it; test and validation clips count too
            if they are in it.
        device: Where to compute.
        progress: Called with (windows done, 0, name).

    Raises:
        DataError: Nothing was given to check, a path holds no clips, no clip can be compared, or the weights were
            trained on what the filter held out.
        WeightsError: The filter or its reference cannot be read, or the weights have another first stage.
        InputError: A clip, still or latent cannot be read or does not fit.
    """
    if not queries.clips and not queries.latents:
        raise DataError("There is nothing to check.", "Give clips, or --latents FILE.")
    where = choose_device(device)
    fitted = load_filter(run)
    if queries.latents and "latent" not in fitted.held:
        raise DataError(
            f"'{run}' has no threshold for latents: no held-out clip was long enough for one.",
            "Fit it to longer clips, or check the clips themselves.",
        )
    opened = load_weights(weights)
    autoencoder = opened.autoencoder().to(where)
    space = latent_space(autoencoder)
    if space != fitted.header.latent_space:
        raise WeightsError(
            f"'{run}' was fitted with another first stage ({fitted.header.latent_space}) than these weights ({space}).",
            "Give the same --weights, or fit again.",
        )
    seen = find_seen(opened.header, fitted.header.held_groups, fitted.header.held_sha256)
    if seen:
        raise DataError(
            f"These weights were trained on {len(seen)} groups or files that '{run}' held out, the first is {seen[0]}.",
            "Fit a filter whose split is that of these weights' training.",
        )
    told = progress or (lambda done, total, name: None)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="us-i2v-privacy-") as folder:
        cache = Path(folder)
        reference = training_views(fitted, run, train, autoencoder, where, cache, notes)
        windows = query_windows(queries, fitted, opened, autoencoder, where, cache)
        views = look(counted(windows, told), autoencoder, where)
    if fitted.centre.numel() != reference.latents.shape[1]:
        raise WeightsError(
            f"'{run}' holds a mean latent of {fitted.centre.numel()} numbers, not of {reference.latents.shape[1]}.",
            "Run `us-i2v privacy fit` again.",
        )
    comparer = Comparer(fitted.network, fitted.centre.to("cpu"), reference, where)
    clips = _checked(views, comparer, fitted)
    pictured = [clip for clip in clips if "siamese" in clip.matches]
    settings = {
        "clips": [str(path) for path in queries.clips],
        "latents": [str(path) for path in queries.latents],
        "samples": queries.samples,
        "seed": queries.seed if queries.samples else None,
        "filter": str(run),
        "weights_sha256": opened.sha256,
        "train": [str(path) for path in train],
        "training_windows": len(reference),
        "training_clips": len(set(zip(reference.clips, reference.groups, strict=True))),
    }
    unknown = [clip.name for clip in clips if not clip.matches]
    if len(unknown) == len(clips):
        raise DataError(
            f"None of {len(clips)} clips can be compared: pictures are blank, or there are no latents to compare with.",
            "Look at the clips (`us-i2v inspect`).",
        )
    if unknown:
        notes.append(
            f"{len(unknown)} of {len(clips)} clips cannot be compared by any measure, the first is '{unknown[0]}'"
        )
    trained = set(opened.header.clip_sha256)
    if trained:
        ours = len(trained & set(fitted.header.clip_sha256))
        notes.append(f"{ours} of the {len(trained)} files that the weights were trained on are among those of the fit")
    found = [clip.name for clip in clips if clip.known_group]
    if found:
        notes.append(f"{len(found)} of {len(clips)} clips are of groups that the filter was fitted on")
    counts = {name: _measured(clips, name) for name in fitted.held if any(name in clip.matches for clip in clips)}
    seeds = _count(pictured, [clip.seed is not None for clip in pictured]) if pictured else None
    return PrivacyResult(settings, fitted, tuple(clips), counts, seeds, tuple(notes))


def _checked(views: Views, comparer: Comparer, fitted: PrivacyFilter) -> list[Checked]:
    """Return what is found about each clip, in their order."""
    reference, quantile = comparer.reference, fitted.header.quantile
    alike = comparer.nearest(views)
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(views.clips):
        rows.setdefault(name, []).append(index)
    seeds = seed_matches([views.pictures[own[0], 0].numpy() for own in rows.values()], reference)
    known = set(fitted.header.training_groups)

    @functools.cache
    def limits(measure: str, windows: int) -> tuple[Array, float, float]:
        held = fitted.held[measure]
        return held.maxima(windows), held.threshold(windows, quantile), held.strangers(windows, quantile)

    checked = []
    for (name, own), seed in zip(rows.items(), seeds, strict=True):
        matches = {}
        for measure in fitted.held:
            best = alike[measure].similarity[own]
            windows = int(np.isfinite(best).sum())
            if windows:
                row = int(np.nanargmax(best))
                value, place = float(best[row]), int(alike[measure].place[own[row]])
                held, limit, strangers = limits(measure, windows)
                matches[measure] = Match(
                    similarity=value,
                    clip=reference.clips[place],
                    group=reference.groups[place],
                    windows=windows,
                    threshold=limit,
                    strangers=strangers,
                    as_high=share_as_high(value, held),
                    copy=value > limit,
                )
        group = views.groups[own[0]]
        checked.append(Checked(name, group, matches, seed, group in known))
    return checked


def _measured(clips: Sequence[Checked], measure: str) -> MeasureCount:
    own = [clip for clip in clips if measure in clip.matches]
    matches = [clip.matches[measure] for clip in own]
    count = _count(own, [match.copy for match in matches])
    limits = [match.threshold for match in matches]
    return MeasureCount(
        share=count.share,
        copies=count.copies,
        by_still=None
        if measure == "latent"
        else sum(clip.matches[measure].copy and clip.seed is not None for clip in own),
        strangers=float(np.mean([match.strangers for match in matches])),
        thresholds=(min(limits), max(limits)),
    )


def _count(clips: Sequence[Checked], flags: Sequence[bool]) -> Count:
    return Count(share_interval(flags, [clip.group for clip in clips]), sum(flags))
