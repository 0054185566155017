"""Sample strips, pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image as PillowImage

from us_i2v.training.strips import write_strip


def test_rows_and_frames_stand_where_they_should(tmp_path):
    levels = torch.linspace(0, 1, 16)
    row = levels[:, None, None].expand(16, 4, 6)
    path = tmp_path / "strip.png"
    write_strip(path, [row, 1 - row], n_frames=4)
    picture = np.asarray(PillowImage.open(path))
    assert picture.shape == (2 * 4, 4 * 6)
    shown = np.array([0, 85, 170, 255])  # frames 0, 5, 10, 15
    assert np.array_equal(picture[:4, ::6], np.tile(shown, (4, 1)))
    assert np.array_equal(picture[4:, 5::6], np.tile(255 - shown, (4, 1)))
    assert [file.name for file in tmp_path.iterdir()] == ["strip.png"]


def test_values_outside_the_range_are_clipped_and_half_precision_is_fine(tmp_path):
    row = torch.tensor([-0.5, 0.5, 7.0], dtype=torch.bfloat16)[:, None, None].expand(3, 2, 2)
    write_strip(tmp_path / "s.png", [row.requires_grad_()], n_frames=3)
    picture = np.asarray(PillowImage.open(tmp_path / "s.png"))
    assert picture[0, ::2].tolist() == [0, 128, 255]
