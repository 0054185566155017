"""Stitched clips: no seam, no drift, loops that close, masks, replay; what cannot be stitched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, small_cinn_weights, small_weights, textured_still
from us_i2v.diffusion import stitching
from us_i2v.errors import ConfigError, InputError
from us_i2v.lengths import halves
from us_i2v.pipeline import GenerateOptions, ImageToVideo

FRAMES = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ImageToVideo:
    path = small_weights(tmp_path_factory.mktemp("weights") / "w.safetensors", labels=("benign", "malignant"))
    return ImageToVideo.from_pretrained(path, device="cpu", threads=1)


def options(**given) -> GenerateOptions:
    return GenerateOptions(**{"steps": 3, "frames": FRAMES} | given)


@pytest.fixture(scope="module")
def clip(model):
    mask = np.zeros((60, 77), bool)
    mask[20:40, 25:50] = True
    return model(textured_still(), mask=mask, seed=2, options=options())[0]


@pytest.fixture(scope="module")
def loop(model):
    mask = np.zeros((60, 77), bool)
    mask[20:40, 25:50] = True
    return model(textured_still(), mask=mask, seed=2, options=options(loop=True))[0]


def flow_steps(flow: np.ndarray) -> np.ndarray:
    """Mean change of flow from frame to frame, (T - 1,)."""
    return np.linalg.norm(np.diff(flow, axis=0), axis=1).mean((1, 2))


def test_a_long_clip_begins_with_the_still_at_rest(clip):
    assert clip.frames.shape == (FRAMES, 60, 77)
    assert np.array_equal(clip.frames[0], textured_still())
    assert not clip.flow[0].any()
    assert np.isfinite(clip.flow).all()
    assert clip.latent.shape == (1, 4, 8, 8, 8)


def test_no_seam_where_windows_meet(clip):
    steps = flow_steps(clip.flow)
    border = np.array([t % 8 == 7 for t in range(FRAMES - 1)])
    inside = steps[8:][~border[8:]]
    assert steps[border].mean() < 1.5 * inside.mean()
    assert steps[border].max() < 1.5 * inside.max()
    gray = np.abs(np.diff(clip.frames.astype(int), axis=0)).mean((1, 2))
    assert gray[border].mean() < 1.3 * gray[8:][~border[8:]].mean()


def test_no_drift(model):
    """Displacements stay as long as they are at first; those of segments add up."""
    still = textured_still()

    def growth(**given) -> float:
        flow = model(still, seed=1, options=options(frames=160, steps=2, speckle=0.0, **given))[0].flow
        length = np.linalg.norm(flow, axis=1).mean((1, 2))
        return float(length[120:].mean() / length[16:56].mean())

    assert 0.6 < growth() < 1.5
    assert growth(longer="reseed") > 1.5


def test_contrast_stays(clip):
    deviation = clip.frames[:, 8:-8, 8:-8].astype(float).std(axis=(1, 2))
    assert deviation[40:].mean() == pytest.approx(deviation[8:40].mean(), rel=0.15)


def test_one_seed_is_one_clip_alone_or_among_others(model, clip):
    many = model(textured_still(), seed=1, num_clips=2, options=options())
    assert np.array_equal(many[1].frames, clip.frames)
    assert not np.array_equal(many[0].frames, clip.frames)


def test_batches_of_any_size_give_the_same_clip(model, clip, monkeypatch):
    monkeypatch.setattr("us_i2v.generators.WINDOWS_AT_ONCE", 3)
    monkeypatch.setattr(stitching.Stitched.__init__, "__defaults__", (3,))
    split = model(textured_still(), seed=2, options=options())[0]
    assert np.allclose(split.flow, clip.flow, atol=1e-4)
    assert np.abs(split.frames.astype(int) - clip.frames).max() <= 1


def test_a_shorter_clip_begins_alike(model, clip):
    """Windows count forwards only: what comes later does not change what was."""
    shorter = model(textured_still(), seed=2, options=options(frames=39))[0]
    assert len(shorter.frames) == 39
    assert np.allclose(shorter.flow[:30], clip.flow[:30], atol=1e-3)


def test_masks_are_carried_all_the_way(model, clip, loop):
    assert clip.masks.shape == clip.frames.shape
    assert loop.masks.shape == loop.frames.shape
    mask = clip.masks[0]
    assert mask.sum() == 500
    marked = np.where(mask, 200, 60).astype(np.uint8)
    moved = model(marked, mask=mask, seed=2, options=options(speckle=0.0))[0]
    for t in (20, 40, FRAMES - 1):
        follows = np.corrcoef(moved.frames[t].ravel(), moved.masks[t].ravel())[0, 1]
        assert follows > np.corrcoef(moved.frames[t].ravel(), mask.ravel())[0, 1]


def test_a_loop_closes(loop, clip):
    assert np.array_equal(loop.frames[0], textured_still())
    steps = flow_steps(loop.flow)
    closing = np.linalg.norm(loop.flow[-1], axis=0).mean()
    # These weights are not trained: they jump off the still, and back to it.
    assert closing < 1.5 * steps[0]
    assert closing < np.linalg.norm(clip.flow[-1], axis=0).mean() / 2
    assert closing < np.linalg.norm(loop.flow[16:48], axis=1).mean() / 2
    gray = np.abs(np.diff(loop.frames.astype(int), axis=0)).mean((1, 2))
    assert np.abs(loop.frames[-1].astype(int) - loop.frames[0]).mean() <= gray.max()


def test_a_loop_of_one_window_goes_out_and_comes_back(model):
    short = model(textured_still(), seed=2, options=options(frames=16, loop=True))[0]
    length = np.linalg.norm(short.flow, axis=1).mean((1, 2))
    assert length[[1, -1]].max() < length[4:12].min()


def test_loops_of_other_lengths_are_refused(model):
    with pytest.raises(ConfigError, match=r"loop of 60 frames.*--frames 64"):
        model(textured_still(), options=options(frames=60, loop=True))
    with pytest.raises(ConfigError, match="--frames 16"):
        model(textured_still(), options=options(frames=8, loop=True))
    with pytest.raises(ConfigError, match="cannot close"):
        model(textured_still(), options=options(loop=True, longer="reseed"))


def test_sixteen_frames_are_what_they_were(model):
    still = textured_still()
    default = model(still, seed=2, options=options(frames=16))[0]
    for longer in ("stitch", "reseed"):
        assert np.array_equal(model(still, seed=2, options=options(frames=16, longer=longer))[0].frames, default.frames)


def test_weights_that_cannot_stitch_go_on_in_segments(tmp_path, monkeypatch):
    model = ImageToVideo.from_pretrained(small_cinn_weights(tmp_path / "c.safetensors"), device="cpu", threads=1)
    assert model(textured_still(), options=GenerateOptions(frames=20))[0].latent.shape[0] == 2
    with pytest.raises(ConfigError, match=r"'longer' = stitch.*--longer out"):
        model(textured_still(), options=GenerateOptions(frames=20, longer="stitch"))
    with pytest.raises(ConfigError, match=r"'loop' = True.*--loop out"):
        model(textured_still(), options=GenerateOptions(loop=True))


def test_a_stitched_latent_can_be_played_again(model, clip, loop):
    still, mask = textured_still(), clip.masks[0]
    again = model.animate(still, clip.latent, seed=2, mask=mask, options=GenerateOptions(frames=FRAMES))
    assert np.array_equal(again.frames, clip.frames)
    assert np.array_equal(again.masks, clip.masks)
    round_again = model.animate(still, loop.latent[0], seed=2, options=GenerateOptions(frames=FRAMES, loop=True))
    assert np.array_equal(round_again.frames, loop.frames)
    with pytest.raises(InputError, match="72 frames need a stitched latent of 9 frames; 1 of 8"):
        model.animate(still, clip.latent, options=GenerateOptions(frames=72))
    with pytest.raises(InputError, match="as many frames"):
        model.animate(still, loop.latent, options=GenerateOptions(frames=48, loop=True))
    with pytest.raises(InputError, match="these weights need"):
        model.animate(still, torch.zeros(2, 4, 3, 8, 8))
    with pytest.raises(ConfigError, match="--longer out"):
        model.animate(still, clip.latent, options=GenerateOptions(longer="stitch"))


def test_half_windows_are_counted(model):
    assert SMALL_AUTOENCODER.n_frames == 16
    assert [halves(model.info, n) for n in (2, 16, 17, 24, 25, 512)] == [2, 2, 3, 3, 4, 64]


def test_label_and_guidance_act_on_every_window(model):
    plain = model(textured_still(), seed=2, options=options(frames=32))[0].flow
    benign = model(textured_still(), seed=2, options=options(frames=32, label="benign", guidance=3.0))[0].flow
    assert (np.abs(benign - plain).mean((1, 2, 3))[1:] > 1e-4).all()
