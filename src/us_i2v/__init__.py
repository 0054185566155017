"""us-i2v: plausible, labelled ultrasound video from a single ultrasound still.

The names below are the public interface; they are imported when first used, so that `import us_i2v` and
`us-i2v --help` do not import torch. Everything else may be imported from its own module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from us_i2v.errors import UsI2VError

if TYPE_CHECKING:
    from us_i2v.data.clips import open_clip
    from us_i2v.data.datasets import find_samples
    from us_i2v.data.still_motion import animate_still
    from us_i2v.data.stills import read_still
    from us_i2v.data.writers import write_clip
    from us_i2v.pipeline import GeneratedClip, GenerateOptions, ImageToVideo
    from us_i2v.weights import load_weights

__version__ = "0.1.0"

__all__ = [
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
]

_HOMES = {
    "GenerateOptions": "us_i2v.pipeline",
    "GeneratedClip": "us_i2v.pipeline",
    "ImageToVideo": "us_i2v.pipeline",
    "animate_still": "us_i2v.data.still_motion",
    "find_samples": "us_i2v.data.datasets",
    "load_weights": "us_i2v.weights",
    "open_clip": "us_i2v.data.clips",
    "read_still": "us_i2v.data.stills",
    "write_clip": "us_i2v.data.writers",
}
"""Module of each name that is imported on first use (PEP 562)."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
