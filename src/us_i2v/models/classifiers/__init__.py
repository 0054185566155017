"""Video classifiers: one file each, one row each in `CLASSIFIERS`.

`published` says how the publishers' pretrained weights go into them.
"""

from __future__ import annotations

from typing import NamedTuple

from us_i2v.models.classifiers import atm, c3d, tdn, tsm
from us_i2v.models.classifiers.base import NAMES, Classifier, ClassifierConfig, ClassifierName

__all__ = ["CLASSIFIERS", "NAMES", "Classifier", "ClassifierConfig", "ClassifierName", "build_classifier", "frame_size"]


class Row(NamedTuple):
    """A classifier.

    Attributes:
        network: Its class.
        size: Side of the paper's frames in pixels.
        title: How it is called in tables.
    """

    network: type[Classifier]
    size: int
    title: str


CLASSIFIERS: dict[str, Row] = {
    "c3d": Row(c3d.C3D, c3d.SIZE, "C3D"),
    "tsm": Row(tsm.TSM, tsm.SIZE, "TSM"),
    "tdn": Row(tdn.TDN, tdn.SIZE, "TDN"),
    "atm": Row(atm.ATMNet, atm.SIZE, "ATMNet"),
}
"""In the order of the paper's Table 2."""


def frame_size(config: ClassifierConfig) -> int:
    """Return the side of the frames: the stated one, or the paper's."""
    return config.size or CLASSIFIERS[config.name].size


def build_classifier(config: ClassifierConfig, n_classes: int) -> Classifier:
    """Return an untrained classifier of `n_classes` classes; its weights come from torch's generator."""
    return CLASSIFIERS[config.name].network(config, n_classes, frame_size(config))
