"""What a privacy check looks at: the training windows, and the windows of clips, latents or clips drawn for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.stills import read_still
from us_i2v.data.training_clips import store_clips
from us_i2v.data.transforms import Fit, fit_frames, to_gray
from us_i2v.errors import DataError
from us_i2v.latents_file import load_latent
from us_i2v.options import GenerateOptions
from us_i2v.pipeline import ImageToVideo
from us_i2v.privacy import REFERENCE, PrivacyFilter, Views, Window, load_reference, look, stored_windows
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    import torch

    from us_i2v.data.manifest import Sample
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.weights import Weights


@dataclass(frozen=True)
class Queries:
    """What is checked.

    Attributes:
        clips: Clips, or folders or manifests of them; with `samples`, stills too.
        latents: Latent files.
        samples: Clips to draw from each still or first frame, instead of checking the clips themselves; 0: none.
        seed: Of that.
    """

    clips: Sequence[Path] = ()
    latents: Sequence[Path] = ()
    samples: int = 0
    seed: int = 0


class Names:
    """Names of what is checked: paths below what was given, each name once.

    Args:
        paths: How many paths of clips were given; if several, their folders are part of the names.
    """

    def __init__(self, paths: int) -> None:
        self.several, self._taken = paths > 1, set[str]()

    def of(self, path: Path, given: Path) -> str:
        """Return the name of a clip or still that was found in a given path."""
        base = given.parent if given.is_file() or path == given else given
        name = path.relative_to(base).as_posix()
        return self.own(f"{base.resolve().name}/{name}" if self.several else name)

    def own(self, name: str) -> str:
        """Return a name that was not returned before: the given one, or with a number."""
        number, own = 1, name
        while own in self._taken:
            number += 1
            own = f"{name} ({number})"
        self._taken.add(own)
        return own


def training_views(
    fitted: PrivacyFilter,
    run: Path,
    train: Sequence[Path],
    autoencoder: Autoencoder,
    device: torch.device,
    cache: Path,
    notes: list[str],
) -> Views:
    """Return the training windows: those that the run keeps, or those of data that are read anew."""
    header = fitted.header
    if not train:
        folder = run if run.is_dir() else run.parent
        return load_reference(folder / REFERENCE, header.reference_sha256)
    samples = [(path.name, sample) for path in train for sample in _clips(path)]
    stored = store_clips(samples, cache, header.size, header.clips)
    known = {clip.sha256 for clip in stored} & set(header.clip_sha256)
    notes.append(
        f"{len(known)} of {len(stored)} clips of --train are among the {len(header.clip_sha256)} of the fit; "
        "thresholds are those of the fit"
    )
    return look(stored_windows(stored, header.clips, header.n_frames, header.windows), autoencoder, device)


def query_windows(
    queries: Queries,
    fitted: PrivacyFilter,
    weights: Weights,
    autoencoder: Autoencoder,
    device: torch.device,
    cache: Path,
) -> Iterator[Window]:
    """Yield what is checked."""
    header, names = fitted.header, Names(len(queries.clips))
    if queries.samples:
        yield from _drawn(queries, weights, header.size, device, names)
    else:
        for path in queries.clips:
            for sample in _clips(path):
                name = names.of(sample.path, path)
                with tempfile.TemporaryDirectory(dir=cache) as own:  # One clip at a time: there may be very many.
                    # A clip of a window's length is that window, repeated frames included.
                    whole = open_clip(sample.path).n_frames == header.n_frames
                    clips = header.clips.model_copy(update={"drop_repeats": False}) if whole else header.clips
                    (stored,) = store_clips([(path.name, sample)], Path(own), header.size, clips)
                    yield from stored_windows(
                        [replace(stored, name=name)], header.clips, header.n_frames, header.windows
                    )
    for path in queries.latents:
        saved = load_latent(path, space=header.latent_space, shape=autoencoder.config.latent_shape)
        length = autoencoder.config.latent_shape[1]
        name = names.own(path.name)
        for latent in saved.latent:
            last = latent.shape[1] - length
            for start in sorted({*range(0, last + 1, length), last}):  # the last one reaches the end
                yield Window(name, str(path), None, latent[:, start : start + length])


def _drawn(queries: Queries, weights: Weights, size: int, device: torch.device, names: Names) -> Iterator[Window]:
    """Draw clips of the stills, and of the clips' first frames, that were given."""
    generator = ImageToVideo(weights, device)
    fit, options = Fit(weights.header.fit, size), GenerateOptions(frames=weights.header.autoencoder.n_frames)
    for path in queries.clips:
        for sample in find_samples(path):
            still = read_still(sample.path) if sample.kind == "still" else open_clip(sample.path).read([0])[0]
            name = names.of(sample.path, path)
            seed = derive_seed(queries.seed, "privacy", name) % 2**31
            for number, clip in enumerate(generator(still, seed=seed, num_clips=queries.samples, options=options)):
                latent = None if clip.latent is None else clip.latent[0]
                frames = fit_frames(to_gray(clip.frames), fit)[0]
                yield Window(f"{name}#{number + 1}", sample.group, frames, latent)


def _clips(path: Path) -> list[Sample]:
    found = [sample for sample in find_samples(path) if sample.kind == "clip"]
    if not found:
        raise DataError(f"'{path}' holds no clips.", "Give a folder of clips, a manifest.csv or a clip.")
    return found


def counted(windows: Iterable[Window], progress: Callable[[int, int, str], None]) -> Iterator[Window]:
    """Pass windows on and tell how many there were, as (done, 0, name): their number is not known beforehand."""
    for done, window in enumerate(windows, 1):
        yield window
        progress(done, 0, window.name)
