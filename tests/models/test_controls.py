"""Pressure and slide: exact on flows that are pure compression, pure slide, or both; mirrored; and in windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from us_i2v.data.training_clips import ClipSampler, ClipsConfig, StoredClip
from us_i2v.models.controls import LAST_FRAMES, measure_controls
from us_i2v.models.motion import warp

ROWS, COLUMNS, FRAMES = 12, 10, 16


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of the cells as shares of the picture: x (1, w), y (h, 1), from -1/2 to 1/2."""
    x = (torch.arange(COLUMNS) + 0.5) / COLUMNS - 0.5
    y = (torch.arange(ROWS) + 0.5) / ROWS - 0.5
    return x[None], y[:, None]


def flow_of(pressure: float = 0.0, slide: float = 0.0, *, spread: float = 0.0, shift: float = 0.0) -> torch.Tensor:
    """Backward flow (1, 2, T, h, w) in cells; it reaches its values in the last frames, linearly before."""
    x, y = grid()
    across = (-slide + spread * x + 0 * y) * COLUMNS
    down = (shift + pressure * y + 0 * x) * ROWS
    course = torch.linspace(0, 1, FRAMES - LAST_FRAMES + 1).tolist() + [1.0] * (LAST_FRAMES - 1)
    return torch.stack([torch.stack([across, down]) * c for c in course], dim=1)[None]


@pytest.mark.parametrize(
    ("pressure", "slide"), [(0.06, 0.0), (-0.03, 0.0), (0.0, 0.04), (0.0, -0.1), (0.05, -0.02), (0.0, 0.0)]
)
@pytest.mark.parametrize(("spread", "shift"), [(0.0, 0.0), (-0.05, 0.08)])
def test_exact_on_affine_flows(pressure: float, slide: float, spread: float, shift: float) -> None:
    measured = measure_controls(flow_of(pressure, slide, spread=spread, shift=shift))
    assert measured.dtype == torch.float32
    assert measured[0].tolist() == pytest.approx([pressure, slide], abs=1e-7)


def test_is_the_least_squares_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    flow = torch.randn((3, 2, FRAMES, ROWS, COLUMNS), generator=generator)
    x, y = grid()
    design = torch.stack([torch.ones(ROWS, COLUMNS), x + 0 * y, y + 0 * x], dim=-1).reshape(-1, 3).double().numpy()
    for sample, (pressure, slide) in zip(flow, measure_controls(flow).tolist(), strict=True):
        mean = sample[:, -LAST_FRAMES:].double().mean(1).reshape(2, -1).numpy()
        across = np.linalg.lstsq(design, mean[0] / COLUMNS, rcond=None)[0]
        down = np.linalg.lstsq(design, mean[1] / ROWS, rcond=None)[0]
        assert (pressure, slide) == pytest.approx((down[2], -across[0]), abs=1e-7)


def test_mirrored_clips_slide_the_other_way() -> None:
    flow = flow_of(0.05, 0.03, spread=0.02)
    mirrored = flow.flip(-1) * torch.tensor([-1.0, 1.0])[None, :, None, None, None]
    assert measure_controls(mirrored)[0].tolist() == pytest.approx([0.05, -0.03], abs=1e-7)


def test_only_the_last_frames_count_and_the_grid_does_not() -> None:
    flow = flow_of(0.05, 0.03)
    flow[:, :, : FRAMES - LAST_FRAMES] = 7.0
    finer = flow.repeat_interleave(2, -1).repeat_interleave(2, -2) * 2
    assert measure_controls(flow)[0].tolist() == pytest.approx([0.05, 0.03], abs=1e-7)
    assert measure_controls(finer)[0, 1] == pytest.approx(0.03, abs=1e-7)


def test_unknown_flow_is_unknown() -> None:
    flow = torch.cat([flow_of(0.05), torch.full((1, 2, FRAMES, ROWS, COLUMNS), torch.nan)])
    measured = measure_controls(flow)
    assert torch.isfinite(measured).all(dim=1).tolist() == [True, False]


def test_signs_are_those_of_the_picture() -> None:
    """A dot of tissue goes to the right under a positive slide, and two dots come closer under pressure."""
    still = torch.zeros(1, 1, ROWS, COLUMNS)
    still[0, 0, 6, 4] = 1.0
    moved = warp(still, flow_of(slide=2 / COLUMNS))[0, 0, -1]
    assert divmod(int(moved.argmax()), COLUMNS) == (6, 6)
    big = torch.zeros(1, 1, 60, 1)
    big[0, 0, [10, 49]] = 1.0
    y = ((torch.arange(60) + 0.5) / 60 - 0.5)[:, None]
    flow = torch.stack([0 * y, 0.25 * y * 60])[None, :, None]
    assert float(measure_controls(flow)[0, 0]) == pytest.approx(0.25)
    first, last = torch.nonzero(warp(big, flow)[0, 0, 0, :, 0] > 0.3).flatten()[[0, -1]].tolist()
    assert last - first < 39 / 1.2


def test_windows_that_are_mirrored_in_training_are_measured_mirrored(tmp_path) -> None:
    """The known flow of a drawn window follows its augmentation."""
    known = (flow_of(0.05, 0.03)[0].transpose(0, 1) * 4).numpy().astype(np.float16)  # pixels of a grid of 4
    np.save(tmp_path / "frames.npy", np.zeros((FRAMES, 40, 40), np.uint8))
    np.save(tmp_path / "flow.npy", known)
    clip = StoredClip("c", tmp_path / "frames.npy", tmp_path / "flow.npy", FRAMES, 0.1, None, "g", "s", "0")
    sampler = ClipSampler([clip], ClipsConfig(stride=1), length=FRAMES, seed=0)
    slides = []
    for step in range(12):
        window = sampler.draw(step, 0)
        assert window.flow is not None
        flow = torch.from_numpy(window.flow.swapaxes(0, 1))[None] / 4
        pressure, slide = measure_controls(flow)[0].tolist()
        assert pressure == pytest.approx(0.05, abs=1e-4)
        assert abs(slide) == pytest.approx(0.03, abs=1e-4)
        slides.append(slide > 0)
    assert len(set(slides)) == 2
