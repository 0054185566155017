"""The names that `us_i2v` itself offers, and what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import us_i2v
from us_i2v.errors import InputError, UsI2VError

PROMISED = {
    "GenerateOptions",
    "GeneratedClip",
    "ImageToVideo",
    "UsI2VError",
    "__version__",
    "animate_still",
    "find_samples",
    "load_weights",
    "open_clip",
    "read_still",
    "write_clip",
}


def test_public_names_are_the_promised_ones() -> None:
    assert set(us_i2v.__all__) == PROMISED
    assert set(dir(us_i2v)) >= PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED - {"__version__", "UsI2VError"}))
def test_a_name_is_the_object_of_its_own_module(name: str) -> None:
    found = getattr(us_i2v, name)
    assert found.__name__ == name
    assert found is getattr(import_module(found.__module__), name)
    assert found.__doc__


def test_errors_can_be_caught_by_the_public_base() -> None:
    assert us_i2v.UsI2VError is UsI2VError
    assert issubclass(InputError, us_i2v.UsI2VError)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        us_i2v.nonsense  # noqa: B018
    assert not hasattr(us_i2v, "torch")


def test_import_is_light_and_names_load_what_they_need() -> None:
    code = """
import json, sys
import us_i2v
heavy = {"torch", "scipy", "imageio", "PIL", "numpy", "pydantic"}
first = sorted(heavy & set(sys.modules))
from us_i2v import find_samples
second = "torch" in sys.modules
from us_i2v import ImageToVideo
print(json.dumps([first, second, "torch" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], False, True]
