"""Damaged filter files end in one clear line, whatever is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from us_i2v.data.training_clips import ClipsConfig
from us_i2v.errors import WeightsError
from us_i2v.models.siamese import SiameseConfig, SiameseNetwork
from us_i2v.privacy import FILTER, Held, PrivacyFilter, PrivacyHeader, load_filter, save_filter
from us_i2v.privacy.files import METADATA_KEY
from us_i2v.weights import read_tensors, write_tensors

HELD = Held(np.array([0.25, 0.5, 0.75]), np.array([0, 0, 1]), np.array([0, 0, 1]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    network = SiameseConfig(size=32, widths=(8, 8, 8, 8), embedding=16)
    header = PrivacyHeader(
        package_version="1",
        network=network,
        clips=ClipsConfig(),
        size=32,
        n_frames=16,
        windows=4,
        latent_space="ab",
        quantile=0.95,
        training_groups=("p0", "p1"),
        clip_sha256=("aa",),
        held_groups=("p2", "p3"),
        held_sha256=("bb",),
        reference_sha256="cc",
    )
    fitted = PrivacyFilter(header, SiameseNetwork(network), {"siamese": HELD, "correlation": HELD}, torch.zeros(6))
    save_filter(tmp_path / FILTER, fitted)
    return tmp_path / FILTER


def changed(path: Path, tensors: dict[str, torch.Tensor | None], header: Callable[[dict[str, Any]], None]) -> None:
    metadata, found = read_tensors(path)
    values = json.loads(metadata[METADATA_KEY])
    header(values)
    kept = {k: v for k, v in (found | tensors).items() if v is not None}
    write_tensors(path, kept, {METADATA_KEY: json.dumps(values)})


def test_filter_survives_its_file(path: Path) -> None:
    held = load_filter(path).held
    assert set(held) == {"siamese", "correlation"}
    np.testing.assert_array_equal(held["siamese"].similarities, HELD.similarities)
    np.testing.assert_array_equal(held["siamese"].clips, HELD.clips)
    np.testing.assert_array_equal(held["siamese"].groups, HELD.groups)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"held.siamese": torch.zeros(3, 2)}, "are of shapes"),
        ({"held.siamese": torch.zeros(2)}, "are of shapes"),
        ({"held.siamese": torch.tensor(0.5)}, "are of shapes"),
        ({f"{kind}.siamese": torch.zeros(0) for kind in ("held", "held_clip", "held_group")}, "are of shapes"),
        ({"held_clip.correlation": None}, "are of shapes"),
        ({"held_clip.siamese": torch.tensor([0, -1, 1])}, "numbered clips"),
        ({"held_group.siamese": torch.zeros(3)}, "numbered clips"),
        ({"held.siamese": torch.tensor([0.1, 7.0, 0.2])}, "numbered clips"),
        ({"held.siamese": None, "held_clip.siamese": None, "held_group.siamese": None}, "lacks a part"),
        ({"latent.centre": torch.zeros(2, 3)}, "lacks a part"),
        ({"latent.centre": None}, "lacks a part"),
        ({"held.colour": torch.zeros(3)}, "unknown tensor 'held.colour'"),
        ({"siamese.head.bias": torch.zeros(7)}, "siamese.head.bias|head.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(path: Path, tensors: dict[str, Any], message: str) -> None:
    changed(path, tensors, lambda values: None)
    with pytest.raises(WeightsError, match=message) as caught:
        load_filter(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [0, -8, 3, 100_000])
def test_widths_of_no_network_are_refused(path: Path, width: int) -> None:
    changed(path, {}, lambda values: values["network"].update(widths=[width, 8, 8, 8]))
    with pytest.raises(WeightsError, match="damaged header"):
        load_filter(path)


def test_format_without_clips_of_the_windows_is_refused(path: Path) -> None:
    changed(path, {}, lambda values: values.update(format_version=1))
    with pytest.raises(WeightsError, match=r"format 1; this version of us-i2v reads 2.*fit again"):
        load_filter(path)
