"""Choice of the device, without needing one."""

from __future__ import annotations

import pytest
import torch

from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that claims two CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_without_a_gpu_auto_is_the_cpu(name: str) -> None:
    assert choose_device(name) == torch.device("cpu")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_missing_device_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}'.*--device cpu"):
        choose_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not known"):
        choose_device(name)


def test_with_gpus(gpus: pytest.MonkeyPatch) -> None:
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="2 found"):
        choose_device("cuda:2")


def test_each_process_of_torchrun_takes_its_own_gpu(gpus: pytest.MonkeyPatch) -> None:
    gpus.delenv("LOCAL_RANK", raising=False)
    assert choose_device("auto") == torch.device("cuda:0")
    gpus.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda:1")
