from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from us_i2v.errors import WeightsError
from us_i2v.metrics import pretrained
from us_i2v.metrics.lpips import LPIPS
from us_i2v.metrics.pretrained import PRETRAINED, Pretrained, load_verified
from us_i2v.metrics.x3d import X3DXS


def register(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    known = Pretrained("tiny.safetensors", hashlib.sha256(content).hexdigest(), "a test")
    monkeypatch.setitem(pretrained.PRETRAINED, "tiny", known)


def test_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save({"w": torch.arange(3.0)})
    register(monkeypatch, content)
    (tmp_path / "tiny.safetensors").write_bytes(content)
    for path in (tmp_path, tmp_path / "tiny.safetensors"):
        assert torch.equal(load_verified("tiny", path)["w"], torch.arange(3.0))


@pytest.mark.parametrize("name", PRETRAINED)
def test_missing_file_names_the_one_wanted(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=PRETRAINED[name].file):
        load_verified(name, tmp_path)


def test_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"w": torch.zeros(2)}))
    with pytest.raises(WeightsError, match="sha256"):
        LPIPS.load("alex", path)
    with pytest.raises(WeightsError, match="sha256"):
        X3DXS.load(path)


def test_known_digest_but_no_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, b"not a weights file")
    (tmp_path / "tiny.safetensors").write_bytes(b"not a weights file")
    with pytest.raises(WeightsError, match="no valid safetensors"):
        load_verified("tiny", tmp_path)
