"""Make the example stills: one benign and one malignant phantom with their masks, beside this script.

    python examples/make_stills.py [FOLDER]

The same pictures come out every time on one type of machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from us_i2v.data.masks import write_mask
from us_i2v.data.phantom import PhantomConfig, simulate
from us_i2v.data.writers import write_still

SIZE = (400, 496)
SEEDS = {"benign": 4, "malignant": 4}


def main(folder: Path) -> None:
    """Write breast_benign.png, breast_malignant.png and their masks into `folder`."""
    for label, seed in SEEDS.items():
        config = PhantomConfig.parse({"label": label, "size": SIZE, "n_frames": 1, "depth_mm": 34.0})
        clip = simulate(config, seed)
        write_still(folder / f"breast_{label}.png", clip.frames[0])
        write_mask(folder / f"breast_{label}_mask.png", clip.masks[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
