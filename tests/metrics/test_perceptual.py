from __future__ import annotations

import math

import numpy as np
import pytest

from us_i2v.errors import InputError
from us_i2v.metrics.perceptual import frame0_fidelity, l1, psnr


def test_by_hand() -> None:
    a = np.array([[0, 10], [20, 250]], dtype=np.uint8)
    b = np.array([[4, 10], [18, 255]], dtype=np.uint8)
    assert l1(a, b) == (4 + 0 + 2 + 5) / 4
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / ((16 + 0 + 4 + 25) / 4)))


def test_8_bit_does_not_wrap_around() -> None:
    black, white = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
    assert l1(black, white) == l1(white, black) == 255
    assert psnr(black, white) == 0


def test_equal() -> None:
    a = np.arange(12.0).reshape(3, 4)
    assert l1(a, a) == 0
    assert psnr(a, a) == math.inf


def test_frame0() -> None:
    still = np.arange(6, dtype=np.uint8).reshape(2, 3)
    frames = np.stack([still, still + 100])
    assert frame0_fidelity(frames, still) == (0.0, 0.0)
    frames[0, 1, 2] += 3
    assert frame0_fidelity(frames, still) == (0.5, 3.0)


def test_errors() -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        l1(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(InputError, match="no pixels"):
        psnr(np.zeros((0, 2)), np.zeros((0, 2)))
