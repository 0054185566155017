"""Speckle drawn in training: the law of `render`, its gradients, and what is left as it was."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from tests.factories import textured_still
from us_i2v.models.motion import Motion
from us_i2v.models.render import SpeckleNoise, StillTexture, render
from us_i2v.training.drawn_speckle import draw_innovations, drawn_frames

SIZE, FRAMES, DRAWS = 64, 8, 48


def still_of(seed: int = 3) -> Tensor:
    return torch.from_numpy(textured_still(SIZE, SIZE, seed=seed)).float()[None, None] / 255


def motion_of(scale: float, *, moving: bool = True) -> Motion:
    """The same motion for every draw, grid of half the size; speckle is stronger on the right."""
    half = SIZE // 2
    fields = {"flow": torch.zeros(1, 2, FRAMES, half, half)}
    frame = torch.arange(FRAMES)[:, None, None].float()
    if moving:
        fields["flow"][:, 0] = 0.3 * frame
        fields["flow"][:, 1] = -0.2 * frame
    here = torch.ones(1, 1, FRAMES, half, half)
    strength = torch.linspace(0.5, 1.5, half).expand_as(here) * scale
    return Motion(**fields, gain=0.02 * here, gate=0.8 * here, mean=0.01 * here, scale=strength).anchored()


def repeated(motion: Motion, times: int) -> Motion:
    return motion.map(lambda x: x.expand(times, *x.shape[1:]))


@cache
def both(scale: float, by_place: bool, moving: bool) -> tuple[Tensor, Tensor]:
    """Clips of `render` and of `drawn_frames`, (48, T, S, S) each, of one still and motion."""
    still, motion = still_of(), motion_of(scale, moving=moving)
    correlation: float | Tensor = 0.6
    if by_place:
        correlation = torch.linspace(0.2, 0.9, SIZE // 2).expand(1, 1, SIZE // 2, -1)
    many, stills = repeated(motion, DRAWS), still.expand(DRAWS, -1, -1, -1)
    texture = StillTexture.measure(stills, stills, motion.grid)
    rendered = render(stills, many, SpeckleNoise(list(range(DRAWS)), texture, SIZE, correlation), texture)
    if by_place:
        correlation = correlation.expand(DRAWS, -1, -1, -1)
    drawn = drawn_frames(stills, many, correlation, draw_innovations(0, 0, DRAWS, FRAMES, SIZE))
    return rendered[:, 0], drawn[:, 0]


def correlations(clips: Tensor, lag: int) -> Tensor:
    """Of the deviations from the mean over draws, lag frames apart, mean over 4 strips of columns: (4,)."""
    centred = clips - clips.mean(dim=0)
    a, b = centred[:, 1 : FRAMES - lag], centred[:, 1 + lag :]
    strips = [x.unflatten(-1, (4, -1)) for x in (a * b, a * a, b * b)]
    ab, aa, bb = (x.mean(dim=(0, 1, 2, 4)) for x in strips)
    return ab / (aa * bb).sqrt()


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("scale", [0.02, 0.4])
def test_statistics_are_those_of_rendered_clips(scale, moving):
    """0.02: a part of the texture is exchanged; 0.4: all of it, and coarse noise is added."""
    rendered, drawn = both(scale, True, moving)
    assert torch.equal(drawn[:, 0], rendered[:, 0])
    a, b = (x.std(dim=0)[1:].unflatten(-1, (4, -1)).mean(dim=(1, 3)) for x in (rendered, drawn))
    assert torch.allclose(a, b, rtol=0.05)
    mean = (rendered.mean(dim=0) - drawn.mean(dim=0)).abs().mean()
    assert mean < 0.25 * rendered.std(dim=0)[1:].mean()
    for lag in (1, 3, 5):
        assert correlations(drawn, lag).tolist() == pytest.approx(correlations(rendered, lag).tolist(), abs=0.05)


def test_neighbouring_pixels_are_as_alike_as_in_rendered_clips():
    rendered, drawn = both(0.02, False, False)
    for shift in ((1, 0), (0, 1), (2, 0), (0, 2)):
        alike = []
        for clips in (rendered, drawn):
            centred = clips[:, 1:] - clips[:, 1:].mean(dim=0)
            alike.append(float((centred * centred.roll(shift, dims=(-2, -1))).sum() / centred.square().sum()))
        assert alike[1] == pytest.approx(alike[0], abs=0.03)


def test_a_sample_does_not_depend_on_its_neighbours():
    stills = torch.cat([still_of(3), still_of(4)])
    motion, noise = motion_of(0.05), draw_innovations(0, 0, 2, FRAMES, SIZE)
    joint = drawn_frames(stills, repeated(motion, 2), 0.6, noise)
    alone = drawn_frames(stills[1:], motion, 0.6, noise[1:])
    assert torch.allclose(joint[1:], alone, atol=1e-5)


def test_innovations_depend_on_seed_and_step():
    a, b, c, d = (draw_innovations(*key, 2, 4, 32) for key in ((0, 1), (0, 1), (0, 2), (1, 1)))
    assert a.shape == (2, 2, 3, 32, 32)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert not torch.equal(a, d)


@pytest.mark.parametrize("scale", [0.02, 0.4])
def test_every_prediction_learns_from_the_frames(scale):
    motion = motion_of(scale).map(lambda x: x.clone().requires_grad_())
    logits = torch.zeros(1, 1, 32, 32, requires_grad=True)
    noise = draw_innovations(0, 0, 1, FRAMES, SIZE)
    clip = drawn_frames(still_of(), motion, torch.sigmoid(logits), noise)
    clip.diff(dim=2).square().mean().backward()
    for name in ("flow", "gain", "gate", "mean", "scale"):
        gradient = getattr(motion, name).grad
        assert bool(torch.isfinite(gradient).all()), name
        assert bool(gradient[:, :, 1:].any()), name
    assert bool(torch.isfinite(logits.grad).all())
    # Speckle that lasts longer changes less.
    assert float(logits.grad.mean()) < 0
    assert float(motion.scale.grad[:, :, 1:].mean()) > 0


def test_the_slope_in_the_correlation_is_that_of_finite_differences():
    still, motion, noise = still_of(), motion_of(0.02), draw_innovations(0, 0, 1, FRAMES, SIZE)

    def energy(rho: Tensor) -> Tensor:
        return drawn_frames(still, motion, rho.expand(1, 1, 4, 4), noise).diff(dim=2).square().mean()

    rho = torch.tensor(0.6, requires_grad=True)
    energy(rho).backward()
    slope = (energy(torch.tensor(0.61)) - energy(torch.tensor(0.59))) / 0.02
    assert float(rho.grad) == pytest.approx(float(slope), rel=0.02)


def test_without_a_scale_frames_are_the_mean_frames():
    motion = motion_of(0.0)
    still = still_of()
    drawn = drawn_frames(still, motion, 0.6, draw_innovations(0, 0, 1, FRAMES, SIZE))
    assert torch.allclose(drawn, render(still, motion), atol=2e-3)
