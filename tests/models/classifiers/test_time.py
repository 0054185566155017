"""TSM's shift, TDN's differences and ATM's offsets against plain Python, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from us_i2v.models.classifiers.atm import ActiveTokenMixer, fetch
from us_i2v.models.classifiers.tdn import LongTerm, TimeFilter, frame_differences, snippets
from us_i2v.models.classifiers.tsm import temporal_shift


def shifted_in_plain_python(video: list[list[float]], share: int) -> list[list[float]]:
    """video[t][c] -> the shift's result."""
    frames, channels = len(video), len(video[0])
    part = channels // share
    out = [[0.0] * channels for _ in range(frames)]
    for t in range(frames):
        for c in range(channels):
            source = t + 1 if c < part else t - 1 if c < 2 * part else t
            if 0 <= source < frames:
                out[t][c] = video[source][c]
    return out


@pytest.mark.parametrize("channels", [8, 16, 20])
def test_temporal_shift(channels: int) -> None:
    torch.manual_seed(channels)
    x = torch.randn(2 * 5, channels, 2, 3)
    y = temporal_shift(x, 5)
    for clip in range(2):
        for row in range(2):
            for column in range(3):
                given = x[5 * clip : 5 * clip + 5, :, row, column].tolist()
                assert y[5 * clip : 5 * clip + 5, :, row, column].tolist() == shifted_in_plain_python(given, 8)


def test_the_time_filter_starts_as_the_shift_and_is_a_filter() -> None:
    torch.manual_seed(0)
    x = torch.randn(2 * 6, 16, 2, 2)
    module = TimeFilter(16)
    torch.testing.assert_close(module(x, 6), temporal_shift(x, 6), atol=0, rtol=0)
    torch.nn.init.normal_(module.conv.weight)
    series = x.reshape(2, 6, 16, 4).permute(0, 3, 2, 1).reshape(8, 16, 6)
    expected = module.conv(series).reshape(2, 4, 16, 6).permute(0, 3, 2, 1).reshape(x.shape)
    torch.testing.assert_close(module(x, 6), expected)


def test_snippets_and_their_differences() -> None:
    video = torch.zeros(1, 3, 16, 1, 1)
    numbers = [float(t * t) for t in range(16)]
    for t, value in enumerate(numbers):
        video[0, :, t] = torch.tensor([value, 10 * value, 100 * value])[:, None, None]
    five = snippets(video, 8)
    assert five.shape == (8, 5, 3, 1, 1)
    got = frame_differences(five)[:, :, 0, 0].tolist()
    for segment, start in enumerate([0, 2, 3, 5, 6, 8, 9, 11]):
        expected = []
        for k in range(4):
            step = numbers[start + k + 1] - numbers[start + k]
            expected += [step, 10 * step, 100 * step]
        assert got[segment] == expected


def test_long_term_differences() -> None:
    """conv2(F_j) - F_i for the next and the previous segment, zero beyond the ends; 3x3 depthwise by hand."""
    torch.manual_seed(1)
    module = LongTerm(32).double().eval()
    x = torch.randn(4, 32, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        narrow = module.bn1(module.conv1(x))
        ahead, behind = module.differences(x, 4)
    kernel = module.conv2.weight.detach()[:, 0].tolist()
    f = narrow.tolist()

    def convolved(t: int, c: int, row: int, column: int) -> float:
        total = 0.0
        for i in range(3):
            for j in range(3):
                y, z = row + i - 1, column + j - 1
                if 0 <= y < 3 and 0 <= z < 3:
                    total += kernel[c][i][j] * f[t][c][y][z]
        return total

    for t in range(4):
        for c in range(2):
            for row in range(3):
                for column in range(3):
                    here = f[t][c][row][column]
                    next_one = convolved(t + 1, c, row, column) - here if t < 3 else 0.0
                    last_one = convolved(t - 1, c, row, column) - here if t > 0 else 0.0
                    assert float(ahead[t, c, row, column]) == pytest.approx(next_one, abs=1e-12)
                    assert float(behind[t, c, row, column]) == pytest.approx(last_one, abs=1e-12)


def test_the_long_term_module_weighs_by_the_mean_of_both_directions() -> None:
    torch.manual_seed(2)
    module = LongTerm(16).double().eval()
    x = torch.randn(6, 16, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (module.attention(d) for d in module.differences(x, 3))
        y = module(x, 3)
    assert float(ahead.abs().max()) < 0.5
    torch.testing.assert_close(y, x * (1 + (ahead + behind) / 2))
    still = torch.zeros(6, 16, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(module(still, 3), still)


def fetched_in_plain_python(line: list[float], place: float) -> float:
    below = math.floor(place)
    share = place - below
    total = 0.0
    for index, weight in ((below, 1 - share), (below + 1, share)):
        if 0 <= index < len(line):
            total += weight * line[index]
    return total


@pytest.mark.parametrize("axis", [2, 3])
def test_fetching_by_offsets(axis: int) -> None:
    torch.manual_seed(axis)
    x = torch.randn(2, 3, 4, 5)
    offset = torch.randn(x.shape) * 3
    offset[0, 0] = torch.tensor([0.0, 1.0, -1.0, 0.5, 7.0])  # whole, half, and far outside
    y = fetch(x, offset, axis)
    for b in range(2):
        for c in range(3):
            for row in range(4):
                for column in range(5):
                    line = x[b, c, :, column].tolist() if axis == 2 else x[b, c, row].tolist()
                    place = (row if axis == 2 else column) + float(offset[b, c, row, column])
                    assert float(y[b, c, row, column]) == pytest.approx(fetched_in_plain_python(line, place), abs=1e-5)


def test_offsets_have_the_slope_between_their_two_neighbours() -> None:
    x = torch.tensor([1.0, 4.0, 2.0, 8.0]).reshape(1, 1, 1, 4)
    offset = torch.tensor([0.25, 0.5, 0.75, -0.5]).reshape(1, 1, 1, 4).requires_grad_()
    fetch(x, offset, 3).sum().backward()
    assert offset.grad is not None
    assert offset.grad.flatten().tolist() == [3.0, -2.0, 6.0, 6.0]


def test_the_mixer_is_the_sum_of_its_three_branches() -> None:
    torch.manual_seed(3)
    mixer = ActiveTokenMixer(8).double()
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    offset = torch.randn(2, 16, 3, 4, dtype=torch.float64)
    planes = x.permute(0, 3, 1, 2)
    with torch.no_grad():
        w = torch.einsum("oc,bchw->bhwo", mixer.atm_w.weight[:, :, 0, 0], fetch(planes, offset[:, :8], 3))
        h = torch.einsum("oc,bchw->bhwo", mixer.atm_h.weight[:, :, 0, 0], fetch(planes, offset[:, 8:], 2))
        w, h = w + mixer.atm_w.bias, h + mixer.atm_h.bias
        z = x @ mixer.atm_c.weight.T
        raw = mixer.fusion((w + h + z).mean((1, 2)))
        for b in range(2):
            for c in range(8):
                a, e, g = (math.exp(float(raw[b, 3 * c + k])) for k in range(3))
                mixed = (a * w[b, ..., c] + e * h[b, ..., c] + g * z[b, ..., c]) / (a + e + g)
                z[b, ..., c] = mixed  # z is read channel by channel only
        expected = z @ mixer.proj.weight.T + mixer.proj.bias
        torch.testing.assert_close(mixer(x, offset), expected)
