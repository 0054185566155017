from __future__ import annotations

import hashlib
import re
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save

from us_i2v.errors import WeightsError
from us_i2v.metrics import pretrained, publishers
from us_i2v.metrics.lpips import LPIPS
from us_i2v.metrics.pretrained import (
    CONFIRMED,
    PRETRAINED,
    PUBLISHED,
    Pretrained,
    Source,
    fill,
    find_metric_weights,
    load_pretrained,
    load_verified,
    provenance_metadata,
    tensors_digest,
    verified_bytes,
)
from us_i2v.metrics.publishers import REFUSED, PublisherFile
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


def converted(path: Path, name: str = "tiny", digest: str = "a" * 64, checked: str = PUBLISHED) -> Path:
    """A file as `us-i2v convert` writes it."""
    tensors = {"w": torch.arange(3.0), "v": torch.ones(2, 2)}
    metadata = provenance_metadata(name, (Source("maker.pth", digest, checked),), tensors)
    path.write_bytes(save(tensors, metadata))
    return path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network `tiny` that is made from one file whose sha256 is published as 64 times a."""
    known = Pretrained("tiny.safetensors", "f" * 64, "a test", ("maker",))
    monkeypatch.setitem(pretrained.PRETRAINED, "tiny", known)
    monkeypatch.setitem(publishers.PUBLISHER_FILES, "maker", PublisherFile("maker.pth", "a" * 64, 3, "nowhere", "none"))


@pytest.mark.usefixtures("tiny")
def test_converted_file_is_accepted_with_its_sources(tmp_path: Path) -> None:
    loaded = load_pretrained("tiny", converted(tmp_path / "any.safetensors"))
    assert torch.equal(loaded.tensors["v"], torch.ones(2, 2))
    assert loaded.sources == (Source("maker.pth", "a" * 64, PUBLISHED),)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"digest": "b" * 64}, "made from other files"),
        ({"digest": "b" * 64, "checked": CONFIRMED}, "made from other files"),
        ({"name": "other"}, "holds 'other' weights"),
        ({"digest": next(iter(REFUSED))}, "rgb_imagenet.pt"),
    ],
)
def test_converted_from_something_else_is_refused(tmp_path: Path, changes: dict[str, str], match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        load_pretrained("tiny", converted(tmp_path / "x.safetensors", **changes))


@pytest.mark.usefixtures("tiny")
def test_users_word_counts_only_where_no_digest_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(publishers.PUBLISHER_FILES, "maker", PublisherFile("maker.pth", None, None, "nowhere", "none"))
    path = converted(tmp_path / "x.safetensors", digest="b" * 64, checked=CONFIRMED)
    assert load_pretrained("tiny", path).sources[0].checked == CONFIRMED
    with pytest.raises(WeightsError, match="made from other files"):
        load_pretrained("tiny", converted(path, digest="b" * 64))


@pytest.mark.usefixtures("tiny")
def test_a_changed_value_in_a_converted_file_is_noticed(tmp_path: Path) -> None:
    path = converted(tmp_path / "x.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_verified("tiny", path)


def test_mistaken_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "i3d_kinetics400.safetensors"
    path.write_bytes(b"stands for the wrong one")
    reason = next(iter(REFUSED.values()))
    monkeypatch.setitem(publishers.REFUSED, hashlib.sha256(path.read_bytes()).hexdigest(), reason)
    for name in ("i3d-kinetics400", "i3d-torchscript"):
        with pytest.raises(WeightsError, match=r"refused: it is rgb_imagenet.pt \(50,883,138 bytes"):
            verified_bytes(name, path)
    assert [digest[:12] for digest in REFUSED if digest.startswith("2609")] == ["2609088c2e8c"]


def test_digests_in_the_tables_are_digests() -> None:
    assert all(re.fullmatch("[0-9a-f]{64}", known.sha256) for known in PRETRAINED.values() if known.sha256)
    for file in publishers.PUBLISHER_FILES.values():
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        named = re.search(r"-([0-9a-f]{8})\.pth$", file.file)  # torchvision and pytorch-fid: in the file's name
        assert named is None or (file.sha256 or "").startswith(named[1])
    assert all(key in publishers.PUBLISHER_FILES for known in PRETRAINED.values() for key in known.made_from)


def test_known_tensors_digest(shared_data: Path) -> None:
    for name in ("lpips-alex", "lpips-squeeze", "x3d-xs"):
        tensors = load_verified(name, shared_data / "weights")
        assert tensors_digest(tensors) == PRETRAINED[name].tensors
        assert tensors_digest(dict(reversed(tensors.items()))) == PRETRAINED[name].tensors


def test_fill_names_the_tensor_that_does_not_fit() -> None:
    network = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3), "bn.num_batches_tracked": torch.tensor(1)}
    assert fill(network, state, "here").weight.sum() == 6
    for change, match in (
        ({"bias": torch.zeros(4)}, r"'bias' is \(4,\), the network has \(3,\)"),
        ({"more": torch.zeros(1)}, "'more' is .* has none"),
    ):
        with pytest.raises(WeightsError, match=match):
            fill(network, state | change, "here")
    with pytest.raises(WeightsError, match="'bias' is missing"):
        fill(network, {"weight": torch.ones(3, 2)}, "here")


@pytest.mark.usefixtures("tiny")
def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, by_variable, cache = (tmp_path / name for name in ("given", "variable", "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("US_I2V_METRIC_WEIGHTS", str(by_variable))
    by_variable.mkdir()
    given.mkdir()
    assert find_metric_weights("tiny", given) is None
    expected = []
    for folder in (cache / "us-i2v" / "metrics", by_variable, given):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny.safetensors").write_bytes(b"")
        expected.append(folder / "tiny.safetensors")
        assert find_metric_weights("tiny", given) == expected[-1]
    assert find_metric_weights("tiny") == expected[1]
    other = given / "another_name.safetensors"
    other.write_bytes(b"")
    assert find_metric_weights("tiny", str(other)) == other
    with pytest.raises(WeightsError, match="does not exist"):
        find_metric_weights("tiny", tmp_path / "nothing")
    monkeypatch.setenv("US_I2V_METRIC_WEIGHTS", str(tmp_path / "nothing"))
    with pytest.raises(WeightsError, match="US_I2V_METRIC_WEIGHTS"):
        find_metric_weights("tiny")


@pytest.mark.usefixtures("tiny")
def test_hub_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fetched"
    path.write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    asked: list[object] = []

    def download(repo: str, file: str, revision: str | None = None) -> str:
        asked.append((repo, file, revision))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    location = f"hf://org/some-repo@1c2d617/fvd/tiny.safetensors?sha256={digest}"
    assert find_metric_weights("tiny", location) == path
    assert asked == [("org/some-repo", "fvd/tiny.safetensors", "1c2d617")]
    with pytest.raises(WeightsError, match="ffffffffffff"):
        find_metric_weights("tiny", "hf://org/some-repo/tiny.safetensors")
    assert asked[1:] == [("org/some-repo", "tiny.safetensors", None)]
    monkeypatch.setitem(pretrained.PRETRAINED, "tiny", Pretrained("tiny.safetensors", None, "a test", ("maker",)))
    for bad, match in (("hf://org/some-repo/tiny.safetensors", "No sha256 is known"), ("hf://org", "no hub location")):
        with pytest.raises(WeightsError, match=match):
            find_metric_weights("tiny", bad)
    assert len(asked) == 2

    def fail(repo: str, file: str, revision: str | None = None) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match="from the hub: no network"):
        find_metric_weights("tiny", location)
