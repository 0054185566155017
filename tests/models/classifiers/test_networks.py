"""The classifiers as published: numbers of parameters, shapes, seeds, and width."""

from __future__ import annotations

import pytest
import torch

from us_i2v.models.classifiers import CLASSIFIERS, NAMES, ClassifierConfig, build_classifier
from us_i2v.models.classifiers.base import average_segments, scaled, segment_starts, take_segments

PARAMETERS = {
    "c3d": 78_003_970,
    "tsm": 23_512_130,
    # Of these, 27,968 are biases that the batch norms behind them cancel. The published code also registers a first
    # convolution of 9,472 numbers that nothing uses; it is not here.
    "tdn": 24_058_146,
    "atm": 14_837_154,
}
STATED_MILLIONS = {"c3d": "78.0", "tsm": "23.5", "tdn": "24.06", "atm": "14.8"}


def small(name: str, **changes: object) -> ClassifierConfig:
    return ClassifierConfig.parse({"name": name, "width": 0.125, "size": 64} | changes)


def test_every_name_has_a_row() -> None:
    assert tuple(CLASSIFIERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_published(name: str) -> None:
    with torch.device("meta"):
        network = CLASSIFIERS[name].network(ClassifierConfig(name=name), 2, CLASSIFIERS[name].size)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == PARAMETERS[name]
    digits = len(STATED_MILLIONS[name].split(".")[1])
    assert f"{count / 1e6:.{digits}f}" == STATED_MILLIONS[name]


def test_c3d_ends_in_8192_numbers_at_the_papers_size() -> None:
    with torch.device("meta"):
        network = build_classifier(ClassifierConfig(name="c3d"), 2)
    assert network.fc6.in_features == 8192


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [64, 72])
def test_logits_have_one_row_a_clip_and_every_parameter_counts(name: str, size: int) -> None:
    torch.manual_seed(0)
    network = build_classifier(small(name, size=size, dropout=0), 3).train()
    logits = network(torch.rand(2, 1, 16, size, size))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    without = [key for key, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())]
    # A bias before a batch norm has no influence, only rounding.
    assert [key for key in without if not (key.endswith(".bias") and name == "tdn")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_does_not_depend_on_its_neighbours_in_the_batch(name: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(small(name), 2).eval()
    clips = torch.rand(3, 1, 16, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(clips)[1:2], network(clips[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_torch_seed_gives_the_same_network(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_classifier(small(name), 2).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", ["c3d", "tsm", "tdn"])
def test_time_matters(name: str) -> None:
    """Played backwards, a clip has other logits (atm sees frames one by one: it must not)."""
    torch.manual_seed(0)
    network = build_classifier(small(name), 2).eval()
    clip = torch.rand(1, 1, 16, 64, 64)
    assert not torch.allclose(network(clip), network(clip.flip(2)), atol=1e-4)


def test_atm_averages_frames_whatever_their_order() -> None:
    torch.manual_seed(0)
    network = build_classifier(small("atm"), 2).eval()
    clip = torch.rand(1, 1, 8, 64, 64).repeat_interleave(2, 2)  # 8 segments of two equal frames
    torch.testing.assert_close(network(clip), network(clip.flip(2)), atol=1e-6, rtol=1e-5)


def test_width_scales_channels_in_steps_of_eight() -> None:
    assert [scaled(c, 1.0) for c in (3, 64, 100)] == [3, 64, 100]
    assert [scaled(c, 0.125) for c in (8, 64, 320)] == [8, 8, 40]
    assert scaled(320, 0.5) == 160


def test_segments_start_in_the_middle_of_equal_parts() -> None:
    assert segment_starts(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    # Snippets of five frames overlap on 16 frames, and stay inside.
    assert segment_starts(16, 8, 5) == [0, 2, 3, 5, 6, 8, 9, 11]


def test_segments_fold_and_average() -> None:
    video = torch.arange(2 * 16.0).reshape(2, 1, 16, 1, 1).expand(2, 3, 16, 2, 2)
    folded = take_segments(video, 4)
    assert folded.shape == (8, 3, 2, 2)
    assert folded[:, 0, 0, 0].tolist() == [2, 6, 10, 14, 18, 22, 26, 30]
    assert average_segments(folded[:, :2, 0, 0], 4).tolist() == [[8, 8], [24, 24]]


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_on_a_cpu_stays_near_float32(name: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(small(name, dropout=0), 2).eval()
    clip = torch.rand(2, 1, 16, 64, 64)
    with torch.no_grad():
        exact = network(clip)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(clip).float()
    assert (rough - exact).abs().max() < 0.05 * (1 + exact.abs().max())
