"""The rows of Table 1: a set of clips for the same real windows each.

Every row answers the first frame of each real window at its own size. Reference rows show what numbers are worth:
a model
counts only if it beats `differences`, `noise` and `random-latent`, which know nothing of the still but its pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.evaluation.clips import Answers, Generated
from us_i2v.pipeline import GenerateOptions
from us_i2v.reproduction.baselines import AddedDifferences, FittedNoise, Maker, RandomAffine
from us_i2v.reproduction.methods import METHODS, MethodName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from us_i2v.data.training_clips import ClipSampler
    from us_i2v.evaluation.clips import RealWindows
    from us_i2v.pipeline import ImageToVideo
    from us_i2v.types import Frames, Image

FITTED_ON = 64
"""Training windows that noise and affine motion are fitted on."""

REFERENCES = {
    "differences": "still + differences of a training clip",
    "noise": "still + fitted noise",
    "random-latent": "random training latent, decoded",
    "affine": "random affine motion",
    "repeat": "frame 0 repeated",
}
"""Titles of the rows without a trained generator, by key."""

QUIET = "lddm-base-quiet"
"""The base model without drawn speckle: paired numbers punish any texture that is drawn."""

BORROWED: dict[str, MethodName] = {"random-latent": "lddm-base", QUIET: "lddm-base"}
"""Rows that are made with another row's model."""


class Made(Answers):
    """Clips by a maker that needs nothing but a gray still and a seed."""

    stream = "table1"

    def __init__(self, real: RealWindows, maker: Maker, seed: int) -> None:
        super().__init__(real, seed)
        self.maker = maker

    def make(self, index: int, seed: int) -> Frames:
        """See `Answers.make`."""
        return self.maker(self.real.native(index)[0], seed)


class RandomLatent:
    """A maker: the latent of a random training window, decoded on the still (no second stage).

    Args:
        model: Whose auto-encoder is used.
        windows: Draws training windows at the model's size, without augmentation.
        options: As for the model's own row.
    """

    def __init__(self, model: ImageToVideo, windows: ClipSampler, options: GenerateOptions) -> None:
        self.model, self.windows, self.options = model, windows, options

    def __call__(self, still: Image, seed: int) -> Frames:
        """See `baselines.Maker`."""
        window = self.windows.draw(seed, 0)
        frames: Frames = (window.frames * 255).round().astype("uint8")
        latent = self.model.encode(frames)
        return self.model.animate(still, latent, seed=seed, options=self.options).frames


def row_title(key: str) -> str:
    """Return a row's title in the table."""
    if key == QUIET:
        return "LDDM base, --speckle 0"
    return REFERENCES[key] if key in REFERENCES else METHODS[key].title  # type: ignore[index]


def build_row(
    key: str, real: RealWindows, windows: ClipSampler, models: Mapping[MethodName, ImageToVideo], seed: int
) -> Answers:
    """Return the row of a key of `REFERENCES` or of `METHODS`, or the one of `QUIET`.

    Args:
        key: Which row.
        real: The real windows.
        windows: Draws training windows without augmentation.
        models: Trained generators by method; `random-latent` takes "lddm-base".
        seed: Base seed.
    """
    if key == QUIET:
        return Generated(real, models["lddm-base"], GenerateOptions(frames=real.rule.length, speckle=0.0), seed)
    if key in models:
        method: MethodName = key  # type: ignore[assignment]
        return Generated(real, models[method], method_options(method, real), seed)
    return Made(real, _maker(key, real, windows, models), seed)


def method_options(method: MethodName, real: RealWindows) -> GenerateOptions:
    """Return the options that a method's clips are made with: its defaults; no speckle where it knows none."""
    return GenerateOptions(frames=real.rule.length, speckle=1.0 if METHODS[method].speckle else 0.0)


def _maker(key: str, real: RealWindows, windows: ClipSampler, models: Mapping[MethodName, ImageToVideo]) -> Maker:
    if key == "differences":
        return AddedDifferences(windows)
    if key == "repeat":
        return _repeat(real.rule.length)
    if key == "random-latent":
        return RandomLatent(models["lddm-base"], windows, method_options("lddm-base", real))
    drawn = (windows.draw(number, 0).frames for number in range(FITTED_ON))
    return FittedNoise.fit(drawn) if key == "noise" else RandomAffine.fit(drawn)


def _repeat(length: int) -> Maker:
    def maker(still: Image, seed: int) -> Frames:
        return still[None].repeat(length, axis=0)

    return maker
