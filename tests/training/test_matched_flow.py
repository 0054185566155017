"""Flow by block matching: exact on pictures that move, unknown on noise, and learned from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.factories import textured_still
from tests.training.conftest import autoencoder_config
from us_i2v.models.motion import Motion
from us_i2v.training.autoencoder import AutoencoderTask
from us_i2v.training.flow_terms import flow_error
from us_i2v.training.matched_flow import matched_flow
from us_i2v.training.report import Silent
from us_i2v.training.runs import gather_clips


def moving(size: int, step: tuple[int, int], frames: int = 4) -> np.ndarray:
    """A picture whose frame t shows what frame 0 has `t * step` pixels (x, y) further on."""
    big = textured_still(size + 40, size + 40, seed=3).astype(np.float32) / 255
    x, y = step
    return np.stack([big[20 + t * y : 20 + t * y + size, 20 + t * x : 20 + t * x + size] for t in range(frames)])


@pytest.mark.parametrize("step", [(2, 0), (0, -2), (2, 2)])
def test_a_moved_picture_gives_its_displacement_inside_and_nothing_at_the_border(step):
    found = matched_flow(moving(64, step), 16)
    assert found.shape == (4, 2, 16, 16)
    assert np.isnan(found[1:, :, :2]).all()
    assert np.isnan(found[1:, :, :, -2:]).all()
    inside = found[1:, :, 2:-2, 2:-2]
    assert np.isfinite(inside).mean() > 0.9
    expected = np.arange(1, 4)[:, None] * np.array(step)
    np.testing.assert_allclose(np.nanmedian(inside, axis=(2, 3)), expected, atol=0.25)


def test_frame_0_is_at_rest_and_noise_has_no_flow():
    noise = np.random.default_rng(0).random((8, 128, 128), np.float32)
    found = matched_flow(noise, 32)
    assert (found[0] == 0).all()
    assert np.isfinite(found[1:]).mean() < 0.04


def test_still_frames_have_no_change_to_explain():
    found = matched_flow(np.full((3, 32, 32), 0.5, np.float32), 8)
    assert np.isnan(found[1:]).all()


def test_the_error_counts_known_cells_only():
    zero = torch.zeros(1, 1, 3, 8, 8)
    motion = Motion(torch.zeros(1, 2, 3, 8, 8), zero, zero, zero, zero)
    known = torch.full((1, 2, 3, 4, 4), torch.nan)
    assert flow_error(motion, known, 16) == 0
    known[0, 0, 1, 2, 2], known[0, 1, 2, 0, 0] = 3.0, -1.0
    assert flow_error(motion, known, 16) == pytest.approx(2.0)


def test_only_clips_without_known_flow_are_matched(clips_folder, tmp_path):
    config = autoencoder_config(loss={"matched": 0.2})
    train_clips, held = gather_clips([clips_folder], tmp_path / "cache", 32, config.clips, 1, Silent())
    task = AutoencoderTask(config, train_clips, held, tmp_path)
    kinds = set()
    for step in range(6):
        batch, _ = task.batch(step, 0, 1)
        for known, matched in zip(batch["flow"], batch["matched"], strict=True):
            knows = bool(torch.isfinite(known).all())
            kinds.add(knows)
            assert bool(torch.isfinite(matched).any()) != knows
    assert kinds == {True, False}
    loss, terms = task.module(batch)
    assert terms["matched"] > 0
    loss.backward()
    assert task.module.autoencoder.decoder.flow_head.bias.grad.abs().max() > 0


def test_runs_begun_before_are_still_known():
    assert "matched" not in autoencoder_config().model_dump()["loss"]
    assert autoencoder_config(loss={"matched": 0.2}).model_dump()["loss"]["matched"] == 0.2
