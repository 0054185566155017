"""BUSI (Al-Dhabyani 2020): breast stills in the folders benign, malignant and normal, with lesion masks.

`benign (1).png` has the mask `benign (1)_mask.png` and, if there are several lesions,
`benign (1)_mask_1.png` and so on. Normal stills have
no mask, or an empty one. BUSI does not tell patients apart, so every still is a group of its own; it is known
to hold near-duplicates, which a manifest.csv can put into common groups: `us-i2v prepare busi` finds them. The class
folders may lie in `Dataset_BUSI_with_GT`, as the download has them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from us_i2v.data.datasets.naming import media, pair_masks
from us_i2v.data.manifest import Sample

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("benign", "malignant", "normal")
DOWNLOAD = "Dataset_BUSI_with_GT"
_STILL = re.compile(r"^(benign|malignant|normal) \(\d+\)$", re.IGNORECASE)


def detect(root: Path) -> bool:
    """Tell whether a class folder holds stills with BUSI's names."""
    return any(
        _STILL.match(file.stem) for folder in _class_folders(root) for file in folder.iterdir() if file.is_file()
    )


def load(root: Path) -> list[Sample]:
    """List the stills of all classes with their masks, in natural order."""
    samples = []
    for folder in _class_folders(root):
        label = folder.name.lower()
        for still, masks in pair_masks(media(folder)):
            samples.append(Sample(still, "still", label, f"busi-{still.stem}", masks=masks))
    return samples


def _class_folders(root: Path) -> list[Path]:
    home = root / DOWNLOAD if (root / DOWNLOAD).is_dir() else root
    folders = [folder for folder in home.iterdir() if folder.is_dir() and folder.name.lower() in CLASSES]
    return sorted(folders, key=lambda folder: folder.name.lower())
