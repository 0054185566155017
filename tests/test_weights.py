"""Weights files: round trip, and every way in which a file can be wrong."""

from __future__ import annotations

import hashlib
import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from tests.factories import small_weights
from us_i2v.errors import OutputError, WeightsError
from us_i2v.weights import METADATA_KEY, load_weights, save_weights


@pytest.fixture
def path(tmp_path):
    return small_weights(tmp_path / "w.safetensors")


def rewrite(path, *, metadata=None, **changes):
    """Write the file again with other tensors or header values."""
    weights = load_weights(path)
    header = {**json.loads(weights.header.model_dump_json()), **(metadata or {})}
    tensors = {**load_file(path), **{k.replace("__", "."): v for k, v in changes.items()}}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, {METADATA_KEY: json.dumps(header)})


def test_round_trip(path, tmp_path):
    weights = load_weights(path)
    assert weights.header.kind == "lddm"
    assert len(weights.sha256) == 64
    state = weights.denoiser().state_dict()
    save_weights(tmp_path / "again.safetensors", weights.header, weights.tensors)
    again = load_weights(tmp_path / "again.safetensors").denoiser().state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)


def test_half_precision_is_half_the_size_and_close(path, tmp_path):
    weights = load_weights(path)
    save_weights(tmp_path / "half.safetensors", weights.header, weights.tensors, half=True)
    half = load_weights(tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.65 * path.stat().st_size
    for key, value in half.autoencoder().state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, weights.autoencoder().state_dict()[key], rtol=2e-3, atol=1e-4)


def test_a_run_folder_is_enough(path):
    path.rename(path.parent / "weights.safetensors")
    assert load_weights(path.parent).header.kind == "lddm"


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt"])
def test_pickles_are_refused_unread(tmp_path, ending):
    file = tmp_path / f"model{ending}"
    file.write_bytes(b"\x80\x04never unpickled")
    with pytest.raises(WeightsError, match="pickle"):
        load_weights(file)


def test_missing_truncated_and_foreign_files(path, tmp_path):
    with pytest.raises(WeightsError, match="do not exist"):
        load_weights(tmp_path / "nothing.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="not a readable"):
        load_weights(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="not a readable"):
        load_weights(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="no us-i2v header"):
        load_weights(path)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_format_versions_are_refused(path, version):
    rewrite(path, metadata={"format_version": version})
    with pytest.raises(WeightsError, match="format"):
        load_weights(path)


def test_damaged_header(path):
    rewrite(path, metadata={"frame_interval_s": -1})
    with pytest.raises(WeightsError, match="damaged header"):
        load_weights(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(path, bad):
    rewrite(path, latent__mean=torch.full((4,), bad))
    with pytest.raises(WeightsError, match=r"latent\.mean"):
        load_weights(path)


def test_wrong_dtype_shape_and_names(path):
    rewrite(path, latent__mean=torch.zeros(4, dtype=torch.int32))
    with pytest.raises(WeightsError, match="dtype"):
        load_weights(path)
    rewrite(small_weights(path), latent__mean=torch.zeros(5))
    with pytest.raises(WeightsError, match="statistics"):
        load_weights(path).latent_statistics()
    rewrite(small_weights(path), denoiser__position=torch.zeros(1))
    with pytest.raises(WeightsError, match=r"denoiser\.position"):
        load_weights(path).denoiser()
    rewrite(small_weights(path), denoiser__position=None)
    with pytest.raises(WeightsError, match="lacks"):
        load_weights(path).denoiser()
    rewrite(small_weights(path), denoiser__surplus=torch.zeros(1))
    with pytest.raises(WeightsError, match="unknown"):
        load_weights(path).denoiser()


def test_an_autoencoder_alone_cannot_generate(path):
    rewrite(path, metadata={"kind": "autoencoder", "denoiser": None, "process": None})
    with pytest.raises(WeightsError, match="train-ldm"):
        load_weights(path).denoiser()


def test_unwritable_target(path, tmp_path):
    weights = load_weights(path)
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_weights(blocker / "x.safetensors", weights.header, weights.tensors)


def test_a_header_that_asks_for_gigabytes_is_refused_before_memory_is_taken(path):
    autoencoder = json.loads(load_weights(path).header.autoencoder.model_dump_json())
    autoencoder["encoder_widths"] = [1 << 20] * 4
    tracked = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(path, metadata={"autoencoder": autoencoder})
    with pytest.raises(WeightsError):
        load_weights(path).autoencoder()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - tracked < 200_000, "kilobytes"


def test_size_cap(path, monkeypatch):
    monkeypatch.setenv("US_I2V_MAX_BYTES", "2000")
    with pytest.raises(WeightsError, match="at most 2,000 are read"):
        load_weights(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format_version": ' + "1" * 6000 + "}", "[]", "3"])
def test_headers_that_are_no_table(path, text):
    save_file({"x": torch.zeros(2)}, path, {METADATA_KEY: text})
    with pytest.raises(WeightsError, match="damaged header"):
        load_weights(path)


def test_digest_and_tensors_are_of_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is replaced while it is opened: what was read is what was hashed."""
    path = small_weights(tmp_path / "w.safetensors")
    first, read = path.read_bytes(), Path.read_bytes

    def then_replaced(file: Path) -> bytes:
        content = read(file)
        small_weights(path, seed=1)
        return content

    monkeypatch.setattr(Path, "read_bytes", then_replaced)
    weights = load_weights(path)
    assert read(path) != first
    assert weights.sha256 == hashlib.sha256(first).hexdigest()
    assert all(torch.equal(weights.tensors[name], value) for name, value in load(first).items())
    assert not all(torch.equal(weights.tensors[name], value) for name, value in load_file(path).items())


def test_a_damaged_header_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    """The reader quotes what it finds in place of a shape, however long that is."""
    header = json.dumps({"x": {"dtype": "F32", "shape": "y" * 5000, "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(WeightsError, match="is not a readable safetensors file") as caught:
        load_weights(path)
    assert len(str(caught.value)) < 300 + len(str(path))
