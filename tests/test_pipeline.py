"""Still to clip: anchors, seeds, masks, held pixels, sizes, options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, small_weights, textured_still
from us_i2v.data.transforms import Fit
from us_i2v.errors import ConfigError, InputError
from us_i2v.models.motion import Motion
from us_i2v.pipeline import GenerateOptions, ImageToVideo, Still
from us_i2v.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = small_weights(tmp_path_factory.mktemp("weights") / "w.safetensors", labels=("benign", "malignant"))
    return ImageToVideo.from_pretrained(path, device="cpu")


FAST = GenerateOptions(steps=3)


@pytest.mark.parametrize("size", [(60, 77), (101, 64), (33, 150), (16, 16)])
@pytest.mark.parametrize("colour", [False, True])
def test_frames_have_the_stills_own_size_and_start_with_it(model, size, colour):
    still = textured_still(*size, colour=colour)
    clip = model(still, options=FAST)[0]
    assert clip.frames.shape == (16, *still.shape)
    assert clip.frames.dtype == np.uint8
    assert np.array_equal(clip.frames[0], still)
    assert np.abs(clip.frames[8].astype(int) - still).mean() > 1
    assert clip.fps == pytest.approx(10)


def test_same_seed_gives_the_same_clip_alone_or_among_others(model):
    still = textured_still()
    many = model(still, seed=3, num_clips=3, options=FAST)
    alone = model(still, seed=5, options=FAST)[0]
    assert [clip.seed for clip in many] == [3, 4, 5]
    assert np.array_equal(many[2].frames, alone.frames)
    assert not np.array_equal(many[0].frames, many[1].frames)


def test_at_rest_without_motion_and_speckle(model):
    still = textured_still()
    clip = model(still, options=FAST.model_copy(update={"motion": 0.0, "speckle": 0.0}))[0]
    assert np.array_equal(clip.frames, np.broadcast_to(still, clip.frames.shape))
    assert not clip.flow.any()


def test_motion_scales_the_flow_and_speckle_leaves_it(model):
    still = textured_still()
    one = model(still, options=FAST)[0]
    half = model(still, options=FAST.model_copy(update={"motion": 0.5}))[0]
    quiet = model(still, options=FAST.model_copy(update={"speckle": 0.0}))[0]
    assert np.allclose(half.flow, one.flow / 2)
    assert np.array_equal(quiet.flow, one.flow)
    assert not np.array_equal(quiet.frames, one.frames)


def test_mask_is_carried_by_the_same_flow(model):
    still = textured_still()
    mask = np.zeros(still.shape, bool)
    mask[20:40, 25:50] = True
    clip = model(still, mask=mask, options=FAST)[0]
    assert clip.masks is not None
    assert clip.masks.shape == clip.frames.shape
    assert np.array_equal(clip.masks[0], mask)
    # A still that is the mask itself must follow its own mask.
    marked = np.where(mask, 200, 60).astype(np.uint8)
    options = FAST.model_copy(update={"speckle": 0.0})
    moved = model(marked, mask=mask, options=options)[0]
    assert moved.masks is not None
    picture_share = np.corrcoef(moved.frames[9].ravel(), moved.masks[9].ravel())[0, 1]
    assert picture_share > 0.7
    unmoved = np.corrcoef(moved.frames[9].ravel(), mask.ravel())[0, 1]
    assert picture_share > unmoved


def test_held_pixels_never_change(model):
    still = np.stack([textured_still(80, 90)] * 3, axis=2)
    still[:, :20] = 0
    still[40:46, 50:60] = (255, 220, 0)
    clip = model(still, options=FAST)[0]
    assert np.array_equal(clip.frames[:, 41:45, 51:59], np.broadcast_to(still[41:45, 51:59], (16, 4, 8, 3)))
    assert (clip.frames[:, :, :16] == 0).all()


def test_size_resizes_the_longer_side(model):
    mask = np.ones((60, 120), bool)
    clip = model(textured_still(60, 120), mask=mask, size=60, options=FAST)[0]
    assert clip.frames.shape == (16, 30, 60)
    assert clip.masks is not None
    assert clip.masks.shape == (16, 30, 60)
    with pytest.raises(ConfigError, match="Size"):
        model(textured_still(), size=5)


def test_fewer_frames_are_the_first_ones(model):
    still = textured_still()
    assert np.array_equal(
        model(still, options=FAST.model_copy(update={"frames": 5}))[0].frames, model(still, options=FAST)[0].frames[:5]
    )


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver"])
def test_every_sampler_gives_another_motion(model, sampler):
    clip = model(textured_still(), options=GenerateOptions(steps=4, sampler=sampler))[0]
    assert np.isfinite(clip.flow).all()
    assert np.abs(clip.flow[1:]).max() > 0


def test_label_and_guidance_act(model):
    still = textured_still()
    plain = model(still, options=FAST)[0].flow
    benign = model(still, options=FAST.model_copy(update={"label": "benign"}))[0].flow
    strong = model(still, options=FAST.model_copy(update={"label": "benign", "guidance": 3.0}))[0].flow
    assert not np.allclose(plain, benign)
    assert not np.allclose(benign, strong)
    with pytest.raises(ConfigError, match="benign, malignant"):
        model(still, options=FAST.model_copy(update={"label": "cyst"}))


def test_fps_is_a_condition_within_the_trained_range(model):
    still = textured_still()
    clip = model(still, options=FAST.model_copy(update={"fps": 20.0}))[0]
    assert clip.fps == pytest.approx(20)
    assert not np.allclose(clip.flow, model(still, options=FAST)[0].flow)
    with pytest.raises(ConfigError, match="frames a second"):
        model(still, options=FAST.model_copy(update={"fps": 100.0}))


def test_speckle_changes_less_from_frame_to_frame_at_a_higher_rate(model, tmp_path):
    """The same latent shown at 5 and at 20 frames a second; by weights that say when theirs holds, and by others."""
    known = load_weights(small_weights(tmp_path / "plain.safetensors"))
    speckle = known.header.speckle.model_copy(update={"interval_s": 0.1})
    path = tmp_path / "timed.safetensors"
    save_weights(path, known.header.model_copy(update={"speckle": speckle}), known.tensors)
    still, latent = textured_still(), torch.zeros(SMALL_AUTOENCODER.latent_shape)

    def changes(model: ImageToVideo, fps: float) -> float:
        frames = model.animate(still, latent, options=GenerateOptions(fps=fps, motion=0.0)).frames[1:].astype(float)
        return float(np.abs(np.diff(frames, axis=0)).mean())

    timed = ImageToVideo.from_pretrained(path, device="cpu")
    assert changes(timed, 20) < 0.8 * changes(timed, 5)
    assert changes(model, 20) == changes(model, 5)


def test_wrong_pictures_and_masks_are_refused(model):
    with pytest.raises(InputError, match="float"):
        model(textured_still().astype(float))
    with pytest.raises(InputError, match="16x16"):
        model(np.zeros((8, 40), np.uint8))
    with pytest.raises(InputError, match="mask is 5x5"):
        model(textured_still(), mask=np.ones((5, 5), bool))


def test_thread_count_is_given_back(model):
    before = torch.get_num_threads()
    model(textured_still(), options=FAST)
    assert torch.get_num_threads() == before


def test_black_and_constant_stills_stay_finite(model):
    for value in (0, 128, 255):
        clip = model(np.full((40, 50), value, np.uint8), options=FAST)[0]
        assert (clip.frames[0] == value).all()


@pytest.mark.parametrize(
    ("policy", "size", "box"),
    [
        ("stretch", (40, 80), (0, 0, 16, 16)),
        ("letterbox", (40, 80), (4, 0, 8, 16)),  # bars above and below: the picture is the middle half
        ("center-crop", (40, 80), (0, -8, 16, 32)),  # only the middle half of the picture is seen
    ],
)
def test_motion_lands_where_the_networks_saw_it(policy, size, box):
    still = Still.prepare(textured_still(*size), Fit(policy, 32))
    flow = torch.zeros(1, 2, 2, 16, 16)
    flow[:, 0] = torch.arange(16.0)
    zero = torch.zeros(1, 1, 2, 16, 16)
    motion = still.from_square(Motion(flow, zero, zero, zero, zero))
    columns = box[1] + (np.arange(16) + 0.5) * box[3] / 16 - 0.5
    expected = np.clip(columns, 0, 15) * 16 / box[3]
    assert np.allclose(motion.flow[0, 0, 1, 5], expected, atol=0.3)
    assert still.seen.shape == (1, 1, 32, 32)


@pytest.mark.parametrize("frames", [16, 24])
def test_batches_and_half_precision_give_the_same_clips_within_a_gray_level(frames):
    """With the bundled weights, whose motion is real: on average less than 1 of 255 off float32 alone."""
    picture = textured_still(96, 120)
    options = GenerateOptions(frames=frames)
    whole = ImageToVideo.from_pretrained(device="cpu")
    alone = whole(picture, num_clips=3, options=options)
    together = whole(picture, num_clips=3, options=options, batch=3)
    half = ImageToVideo.from_pretrained(device="cpu", precision="bf16")(picture, num_clips=3, options=options)
    for one, batched, rounded in zip(alone, together, half, strict=True):
        moved = np.abs(one.frames[1:].astype(int) - one.frames[0]).mean()
        assert moved > 2
        assert np.abs(one.frames.astype(int) - batched.frames).mean() < 1
        assert 0 < np.abs(one.frames.astype(int) - rounded.frames).mean() < 1
        assert batched.latent.shape == one.latent.shape
        assert not torch.equal(rounded.latent, one.latent)
