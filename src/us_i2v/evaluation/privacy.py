"""Do generated clips copy clips of the training set?

Every window of a clip is compared with every training window (`privacy.Comparer`); a clip copies by a measure if one of
its windows is more alike to a training window than all but a share 1 - quantile of held-out windows are to theirs. So
that share of strangers is flagged too, by each measure: a number of copies means something beside it.

The first frame of an image-to-video clip is a still that somebody gave. Whether it is itself a near-copy of a training
picture is found apart (`data.duplicates`): a clip that is flagged only because its still is shows no memory of the
generator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from us_i2v.data.duplicates import find_pairs, fingerprint
from us_i2v.devices import choose_device
from us_i2v.errors import DataError, WeightsError
from us_i2v.evaluation.privacy_clips import Queries, counted, query_windows, training_views
from us_i2v.latents_file import latent_space
from us_i2v.metrics.copies import share_as_high, share_interval
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
        as_high: Share of held-out windows that are at least as alike to theirs, see `metrics.copies.share_as_high`.
        copy: Whether the similarity is above the threshold.
    """

    similarity: float
    clip: str
    group: str
    as_high: float
    copy: bool


@dataclass(frozen=True)
class SeedMatch:
    """The training picture that a clip's first frame is a near-copy of, see `data.duplicates`."""

    similarity: float
    clip: str
    group: str


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
    """How many clips copy by a measure, with an interval over groups, and how many of them by their still alone."""

    share: Interval
    copies: int
    by_still: int


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
    counts: dict[str, Count]
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
        DataError: Nothing was given to check, or a path holds no clips.
        WeightsError: The filter or its reference cannot be read, or the weights have another first stage.
        InputError: A clip, still or latent cannot be read or does not fit.
    """
    if not queries.clips and not queries.latents:
        raise DataError("There is nothing to check.", "Give clips, or --latents FILE.")
    where = choose_device(device)
    fitted = load_filter(run)
    opened = load_weights(weights)
    autoencoder = opened.autoencoder().to(where)
    space = latent_space(autoencoder)
    if space != fitted.header.latent_space:
        raise WeightsError(
            f"'{run}' was fitted with another first stage ({fitted.header.latent_space}) than these weights ({space}).",
            "Give the same --weights, or fit again.",
        )
    told = progress or (lambda done, total, name: None)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="us-i2v-privacy-") as folder:
        cache = Path(folder)
        reference = training_views(fitted, run, train, autoencoder, where, cache, notes)
        windows = query_windows(queries, fitted, opened, autoencoder, where, cache)
        views = look(counted(windows, told), autoencoder, where)
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
    found = [clip.name for clip in clips if clip.known_group]
    if found:
        notes.append(f"{len(found)} of {len(clips)} clips are of groups that the filter was fitted on")
    counts = {
        name: _count([(clip, clip.matches[name].copy) for clip in clips if name in clip.matches])
        for name in fitted.header.thresholds
        if any(name in clip.matches for clip in clips)
    }
    seeds = _count([(clip, clip.seed is not None) for clip in pictured]) if pictured else None
    return PrivacyResult(settings, fitted, tuple(clips), counts, seeds, tuple(notes))


def _checked(views: Views, comparer: Comparer, fitted: PrivacyFilter) -> list[Checked]:
    """Return what is found about each clip, in their order."""
    reference = comparer.reference
    alike = comparer.nearest(views)
    seeds = _seed_matches(views, reference)
    rows: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(zip(views.clips, views.groups, strict=True)):
        rows.setdefault(key, []).append(index)
    known = set(fitted.header.training_groups)
    checked = []
    for (name, group), own in rows.items():
        matches = {}
        for measure, limit in fitted.header.thresholds.items():
            best = alike[measure].similarity[own]
            if np.isfinite(best).any():
                row = int(np.nanargmax(best))
                value, place = float(best[row]), int(alike[measure].place[own[row]])
                as_high = share_as_high(value, fitted.held[measure].numpy())
                copy = value > limit.value
                matches[measure] = Match(value, reference.clips[place], reference.groups[place], as_high, copy)
        checked.append(Checked(name, group, matches, seeds.get(own[0]), group in known))
    return checked


def _seed_matches(views: Views, reference: Views) -> dict[int, SeedMatch]:
    """Return, by window, the training picture of which the window's first frame is a near-copy."""
    ours = [fingerprint(picture) for picture in views.pictures[:, 0].numpy()]
    theirs = [fingerprint(picture) for picture in reference.pictures.flatten(0, 1).numpy()]
    sides = ["ours"] * len(ours) + ["theirs"] * len(theirs)
    found: dict[int, SeedMatch] = {}
    for pair in find_pairs([*ours, *theirs], sources=sides):
        place = (pair.second - len(ours)) // reference.pictures.shape[1]
        match = SeedMatch(pair.similarity, reference.clips[place], reference.groups[place])
        if pair.first not in found or found[pair.first].similarity < match.similarity:
            found[pair.first] = match
    return found


def _count(clips: Sequence[tuple[Checked, bool]]) -> Count:
    flags = [flag for _, flag in clips]
    by_still = sum(flag and clip.seed is not None for clip, flag in clips)
    return Count(share_interval(flags, [clip.group for clip, _ in clips]), sum(flags), by_still)
