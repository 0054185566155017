"""What a privacy check looks at: names that stay apart, and all of a long latent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, small_weights, textured_still
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.data.writers import write_clip
from us_i2v.evaluation.privacy_clips import Names, Queries, query_windows
from us_i2v.latents_file import latent_space, save_latent
from us_i2v.models.siamese import SiameseConfig, SiameseNetwork
from us_i2v.privacy import Held, PrivacyFilter, PrivacyHeader, Window
from us_i2v.weights import load_weights

LENGTH = SMALL_AUTOENCODER.latent_shape[1]


class Checker:
    """Windows of queries, by weights and a filter that nobody fitted."""

    def __init__(self, root: Path) -> None:
        self.root, self.weights = root, load_weights(small_weights(root / "w.safetensors"))
        self.autoencoder = self.weights.autoencoder()
        self.space = latent_space(self.autoencoder)
        network = SiameseConfig(size=32, widths=(8, 8, 8, 8), embedding=16)
        one = Held(np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int64))
        header = PrivacyHeader(
            package_version="1",
            network=network,
            clips=ClipsConfig(drop_repeats=False, stride=1),
            size=SMALL_AUTOENCODER.size,
            n_frames=SMALL_AUTOENCODER.n_frames,
            windows=4,
            latent_space=self.space,
            quantile=0.95,
            training_groups=(),
            clip_sha256=(),
            held_groups=(),
            held_sha256=(),
            reference_sha256="",
        )
        self.fitted = PrivacyFilter(header, SiameseNetwork(network), {"siamese": one}, torch.zeros(1))

    def windows(self, queries: Queries) -> list[Window]:
        found: Iterable[Window] = query_windows(
            queries, self.fitted, self.weights, self.autoencoder, torch.device("cpu"), self.root
        )
        return list(found)

    def clip(self, name: str, seed: int, length: int = 16) -> Path:
        frames = np.stack([np.roll(textured_still(40, 40, seed=seed), k, 1) for k in range(length)])
        return Path(write_clip(self.root / name, frames, 20.0))


@pytest.fixture
def checker(tmp_path: Path) -> Checker:
    return Checker(tmp_path)


def test_clips_of_one_name_stay_apart(checker: Checker) -> None:
    paths = [
        checker.clip(f"{folder}/x.npz", seed).parent for seed, folder in enumerate(("a/clips", "b/clips", "c/own"))
    ]
    windows = checker.windows(Queries(paths))
    assert [window.name for window in windows] == ["clips/x.npz", "clips/x.npz (2)", "own/x.npz"]
    single = checker.windows(Queries(paths[:1]))
    assert [window.name for window in single] == ["x.npz"]
    file = checker.windows(Queries([paths[0] / "x.npz", paths[2]]))
    assert [window.name for window in file] == ["clips/x.npz", "own/x.npz"]


def test_windows_of_one_clip_have_one_name(checker: Checker) -> None:
    path = checker.clip("long/x.npz", 0, 70)
    assert [window.name for window in checker.windows(Queries([path.parent]))] == ["x.npz"] * 4


def test_a_number_is_no_name_that_was_given(tmp_path: Path) -> None:
    names = Names(1)
    given = ["x", "x (2)", "x", "x"]
    assert [names.own(name) for name in given] == ["x", "x (2)", "x (3)", "x (4)"]


@pytest.mark.parametrize(("extra", "starts"), [(0, [0]), (1, [0, 1]), (LENGTH, [0, LENGTH]), (LENGTH + 1, None)])
def test_long_latents_are_looked_at_to_their_end(checker: Checker, extra: int, starts: list[int] | None) -> None:
    channels, length, *place = SMALL_AUTOENCODER.latent_shape
    latent = torch.randn(1, channels, length + extra, *place, generator=torch.Generator().manual_seed(0))
    paths = [checker.root / name / "latent.safetensors" for name in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        save_latent(path, latent, space=checker.space, weights_sha256="ab" * 32, frames=16, fps=20.0)
    windows = checker.windows(Queries(latents=paths))
    expected = [0, LENGTH, LENGTH + 1] if starts is None else starts
    own = [window for window in windows if window.name == "latent.safetensors"]
    assert len(own) == len(expected)
    assert len(windows) == 2 * len(expected)
    assert {window.name for window in windows} == {"latent.safetensors", "latent.safetensors (2)"}
    for window, start in zip(own, expected, strict=True):
        assert window.latent is not None
        torch.testing.assert_close(window.latent, latent[0, :, start : start + length], rtol=0, atol=0)
