from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from tests.evaluation.sets import Arrays, Statistics, drifting, frozen, noisy, real_set
from us_i2v.errors import InputError
from us_i2v.evaluation.measure import (
    CROP_SCALARS,
    FRAME_SAMPLES,
    IDENTICAL_DB,
    SCALARS,
    Measured,
    measure,
)

EXTRACTORS = {"clips": Statistics(), "pictures": Statistics(per_frame=True)}


def tables(measured: Measured) -> dict[str, np.ndarray]:
    found = {}
    for kind in ("features", "scalars", "curves", "paired"):
        found |= {f"{kind}/{name}": array for name, array in getattr(measured, kind).items()}
    return found


@pytest.fixture(scope="module")
def clips() -> Arrays:
    return real_set(6)


@pytest.fixture(scope="module")
def measured(clips: Arrays) -> Measured:
    return measure(clips.changed(noisy(8)), EXTRACTORS, partner=clips, batch=8)


def test_everything_has_one_row_a_clip(measured: Measured) -> None:
    found = tables(measured)
    assert {name.split("/")[1] for name in found if name.startswith("scalars")} == {*SCALARS, *CROP_SCALARS}
    assert all(len(array) == 6 for array in found.values())
    assert measured.features["clips"].shape == (6, 6)
    assert measured.features["pictures"].shape == (6, FRAME_SAMPLES, 6)
    assert measured.curves["decorrelation"].shape == (6, 16)
    assert set(measured.paired) == {"ssim", "psnr", "l1", "frame0"}
    assert measured.partners == measured.names
    assert measured.networks["pictures"].description == "six statistics, no resize, 4 frames a clip"


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_size_changes_nothing(clips: Arrays, measured: Measured, batch: int) -> None:
    other = measure(clips.changed(noisy(8)), EXTRACTORS, partner=clips, batch=batch)
    for name, array in tables(measured).items():
        np.testing.assert_array_equal(tables(other)[name], array, err_msg=name)


def test_order_changes_nothing(clips: Arrays, measured: Measured) -> None:
    order = [4, 0, 5, 2, 1, 3]
    fakes = clips.changed(noisy(8)).reordered(order)
    other = measure(fakes, EXTRACTORS, partner=clips, pairs=order, batch=4)
    assert other.partners == tuple(clips.names[k] for k in order)
    for name, array in tables(measured.select(order)).items():
        np.testing.assert_array_equal(tables(other)[name], array, err_msg=name)


def test_select_keeps_rows_together(measured: Measured) -> None:
    some = measured.select([3, 1])
    assert some.names == ("clip03", "clip01")
    assert some.groups == ("p01", "p00")
    np.testing.assert_array_equal(some.paired["l1"], measured.paired["l1"][[3, 1]])


def test_a_clip_against_itself(clips: Arrays) -> None:
    found = measure(clips.reordered([0, 1]), {}, partner=clips, describe=False, curves=False).paired
    np.testing.assert_array_equal(found["l1"], 0)
    np.testing.assert_array_equal(found["frame0"], 0)
    np.testing.assert_array_equal(found["psnr"], IDENTICAL_DB)
    np.testing.assert_allclose(found["ssim"], 1, atol=1e-12)


def test_frame_0_does_not_count_in_paired_numbers(clips: Arrays) -> None:
    def spoil(clip: np.ndarray, index: int) -> np.ndarray:
        return np.concatenate([np.zeros_like(clip[:1]), clip[1:]])

    found = measure(clips.reordered([0]).changed(spoil), {}, partner=clips, describe=False, curves=False).paired
    assert found["l1"][0] == 0
    assert found["frame0"][0] == pytest.approx(clips.clips[0][0].mean())


def test_without_a_partner_numbers_are_nan(clips: Arrays) -> None:
    found = measure(clips, {}, partner=clips, pairs=[0, None, 2, None, None, 5], describe=False, curves=False)
    assert np.isfinite(found.paired["l1"]).tolist() == [True, False, True, False, False, True]
    assert found.partners == ("clip00", "", "clip02", "", "", "clip05")
    assert measure(clips, {}, describe=False, curves=False).paired == {}


def test_small_clips_have_no_crop_numbers(clips: Arrays) -> None:
    assert all(np.isnan(measure(clips.reordered([0]), {}, curves=False).scalars[name]).all() for name in CROP_SCALARS)
    cropped = Arrays([drifting(0, 112)], ["a"], ["a"], ["a"], crops=True)
    found = measure(cropped, {}, curves=False).scalars
    assert found["motion_energy_crop"] == found["motion_energy"]


def test_frozen_and_blank_clips(clips: Arrays) -> None:
    still = clips.reordered([0, 1]).changed(frozen)
    still.clips[1] = np.full_like(still.clips[1], 90)
    found = measure(still, {})
    np.testing.assert_allclose(found.curves["decorrelation"][0], 1, atol=1e-6)
    assert np.isnan(found.curves["decorrelation"][1]).all()
    assert found.scalars["motion_energy"].tolist() == [0, 0]
    assert found.scalars["highpass_ratio"][0] == 1
    assert np.isnan(found.scalars["highpass_ratio"][1])


def test_partner_of_another_shape_is_an_error(clips: Arrays) -> None:
    short = clips.changed(lambda clip, index: clip[:12])
    with pytest.raises(InputError, match="real partner"):
        measure(short, {}, partner=clips, describe=False, curves=False)


def test_memory_does_not_grow_with_the_number_of_clips() -> None:
    names = [str(k) for k in range(20)]
    alive: list[weakref.ref] = []
    counts: list[int] = []

    class Watched(Arrays):
        def frames(self, index: int) -> np.ndarray:
            clip = self.clips[index].copy()
            gc.collect()
            alive.append(weakref.ref(clip))
            counts.append(sum(ref() is not None for ref in alive))
            return clip

    measure(
        Watched([drifting(0)] * 20, names, names, names), {"clips": Statistics()}, describe=False, curves=False, batch=3
    )
    assert len(counts) == 20
    assert max(counts) <= 2 * 3


def test_progress_counts_every_clip(clips: Arrays) -> None:
    seen: list[tuple[int, int, str]] = []
    measure(clips, {}, describe=False, curves=False, progress=lambda *values: seen.append(values))
    assert seen == [(k + 1, 6, name) for k, name in enumerate(clips.names)]
