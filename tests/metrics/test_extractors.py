from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from us_i2v.errors import ConfigError, InputError, WeightsError
from us_i2v.metrics import extractors, pretrained
from us_i2v.metrics.extractors import EXTRACTORS, load_extractor
from us_i2v.metrics.i3d import I3D, prepare_videogpt
from us_i2v.metrics.inception import InceptionV3
from us_i2v.metrics.pretrained import (
    CONFIRMED,
    PRETRAINED,
    PUBLISHED,
    Source,
    provenance_metadata,
)
from us_i2v.metrics.publishers import PUBLISHER_FILES
from us_i2v.metrics.x3d import X3DXS
from us_i2v.types import Frames

NETWORKS = {
    "x3d-xs": X3DXS,
    "i3d-kinetics400": I3D,
    "i3d-dtdb": lambda: I3D(18),
    "inception-fid": InceptionV3,
}


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights of this machine are found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("US_I2V_METRIC_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of every network, in the form that `us-i2v convert` writes."""
    path = tmp_path_factory.mktemp("weights")
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        tensors = {k: v for k, v in build().state_dict().items() if v.is_floating_point()}
        sources = []
        for key in PRETRAINED[name].made_from:
            known = PUBLISHER_FILES[key]
            sources.append(Source(known.file, known.sha256 or "c" * 64, PUBLISHED if known.sha256 else CONFIRMED))
        content = save(tensors, provenance_metadata(name, tuple(sources), tensors))
        (path / PRETRAINED[name].file).write_bytes(content)
    return path


def clips(count: int, frames: int) -> list[Frames]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (frames, 40, 40 + 4 * k), dtype=np.uint8) for k in range(count)]


scripting_is_deprecated = pytest.mark.filterwarnings("ignore:.torch.jit.(script|save):DeprecationWarning")


class Detector(nn.Module):
    """Called like StyleGAN-V's file; the features tell what it was given."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        flags = torch.tensor([float(rescale), float(resize), float(return_features), float(x.size(2))])
        largest = x.amax((1, 2, 3, 4)).unsqueeze(1)
        return torch.cat([flags.unsqueeze(0).expand(x.size(0), 4), largest, torch.zeros(x.size(0), 395)], dim=1)


def scripted(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Detector()), buffer)
    path.write_bytes(buffer.getvalue())
    known = replace(PRETRAINED["i3d-torchscript"], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(pretrained.PRETRAINED, "i3d-torchscript", known)
    return path


@pytest.mark.parametrize(
    ("key", "label", "dimensions", "least", "per_frame"),
    [
        ("fvd-x3d", "FVD-X3D[X3D_XS.pyth]", 432, 1, False),
        ("fvd", "FVD[i3d_pretrained_400]", 400, 9, False),
        ("dtfvd", "DTFVD", 1024, 16, False),
        ("fid", "FID", 2048, 1, True),
    ],
)
def test_contract(folder: Path, key: str, label: str, dimensions: int, least: int, per_frame: bool) -> None:
    extractor = load_extractor(key, folder)
    assert (extractor.label, extractor.dimensions, extractor.least_frames) == (label, dimensions, least)
    assert extractor.per_frame is per_frame
    assert "px" in extractor.description
    assert ("confirmed by the user" in extractor.description) == (key in ("fvd", "dtfvd"))
    rows = least if per_frame else 1
    given = clips(2, least)
    found = extractor.features(given)
    assert found.dtype == np.float64
    assert found.shape == (2 * rows, dimensions)
    assert np.ptp(found, axis=0).max() > 0
    # Place and neighbours do not matter, bit for bit.
    np.testing.assert_array_equal(extractor.features(given[1:]), found[rows:])
    assert extractor.features([]).shape == (0, dimensions)
    short: Sequence[Frames] = [given[0][: least - 1]] if least > 1 else [given[0].astype(np.float32)]
    with pytest.raises(InputError, match="got a clip of"):
        extractor.features(short)


def test_table_is_tested_whole() -> None:
    assert set(EXTRACTORS) == {"fvd-x3d", "fvd", "dtfvd", "fid"}
    assert all(name in PRETRAINED for kind in EXTRACTORS.values() for name in kind.weights)


def test_fvd_is_the_logits_of_the_prepared_clip(folder: Path) -> None:
    torch.manual_seed(0)
    clip = clips(1, 9)[0]
    expected = I3D()(prepare_videogpt(clip)).double().numpy()
    np.testing.assert_array_equal(load_extractor("fvd", folder).features([clip]), expected)


@scripting_is_deprecated
def test_torchscript_is_called_as_its_authors_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scripted(tmp_path / "i3d_torchscript.pt", monkeypatch)
    for location in (path, tmp_path):
        extractor = load_extractor("fvd", location)
        assert extractor.label == "FVD[i3d_torchscript]"
        clip = clips(1, 12)[0]
        row = extractor.features([clip])[0]
        assert row[:5].tolist() == [1, 1, 1, 12, clip.max()]
        with pytest.raises(InputError, match="8 frames, needs at least 9"):
            extractor.features([clip[:8]])


def test_other_torchscript_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    path.write_bytes(b"something else")
    monkeypatch.setattr(extractors.i3d, "StyleGANVDetector", lambda content: pytest.fail("opened"))
    with pytest.raises(WeightsError, match=r"has sha256 .*bec6519f66ea.*`us-i2v convert`"):
        load_extractor("fvd", path)


@scripting_is_deprecated
def test_state_dict_comes_before_torchscript(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(tmp_path / "i3d_torchscript.pt", monkeypatch)
    (tmp_path / "i3d_kinetics400.safetensors").symlink_to(folder / "i3d_kinetics400.safetensors")
    assert load_extractor("fvd", tmp_path).label == "FVD[i3d_pretrained_400]"


@pytest.mark.parametrize("key", EXTRACTORS)
def test_missing_weights(tmp_path: Path, key: str) -> None:
    for location in (None, tmp_path):
        with pytest.raises(WeightsError, match=r"in no folder that was searched.*us-i2v convert") as caught:
            load_extractor(key, location)
        assert str(tmp_path / "cache") in str(caught.value)
    with pytest.raises(WeightsError, match="does not exist"):
        load_extractor(key, tmp_path / "missing.safetensors")


def test_unknown_key() -> None:
    with pytest.raises(ConfigError, match="'fvd2' is no feature extractor"):
        load_extractor("fvd2")


def test_known_x3d_file_keeps_its_label(shared_data: Path) -> None:
    extractor = load_extractor("fvd-x3d", shared_data / "weights")
    assert extractor.label == "FVD-X3D"
    assert extractor.description == (
        "X3D-XS Kinetics-400 pool432, 112 px bilinear, x3d_xs_kinetics400.safetensors sha256 0a7f392a"
    )
