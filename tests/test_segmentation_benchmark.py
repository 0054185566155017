"""`benchmarks/segmentation.py`: equal arms, no group on two sides, right measures, and a run that is resumed."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.factories import small_weights
from tests.fakes import still_pixels, write_png
from us_i2v.config import Config
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.masks import read_masks
from us_i2v.data.stills import read_still
from us_i2v.errors import DataError
from us_i2v.types import Frames, Mask

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIDE, COUNT = 32, 5


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names, its siblings importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "segmentation.py"))


def stills_on_disk(folder: Path, splits: str = "rrrrrvvttt") -> Path:
    """Ten stills with a bright disc as lesion, every fifth without one; one group each."""
    samples = []
    names = {"r": "train", "v": "val", "t": "test"}
    for k, split in enumerate(splits):
        pixels = still_pixels(k, 40, 48)
        rows, columns = np.indices(pixels.shape)
        disc = (rows - 14 - k) ** 2 + (columns - 18 - k) ** 2 < 64
        masks: tuple[Path, ...] = ()
        if k % 5 != 4:
            pixels = np.where(disc, 250, pixels // 2).astype(np.uint8)
            masks = (write_png(folder / f"s{k}_mask.png", disc),)
        path = write_png(folder / f"s{k}.png", pixels)
        samples.append(Sample(path, "still", "benign" if masks else "normal", f"g{k}", names[split], masks))
    write_manifest(folder / "manifest.csv", samples)
    return folder


def call(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["segmentation.py", *arguments])
    code: int = script["main"]()
    return code


def settings(script: dict[str, Any], data: Path, **changes: Any) -> Config:
    small = {**script["QUICK"], "data": str(data), "side": SIDE, "pictures": COUNT, **changes}
    parsed: Config = script["Settings"].parse(small, "settings")
    return parsed


def test_quick_run_writes_a_report_and_goes_on(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, weights = tmp_path / "out", small_weights(tmp_path / "w.safetensors")
    data = stills_on_disk(tmp_path / "data")
    line = ("run", str(out), str(data), "--weights", str(weights), "--quick")
    assert call(script, monkeypatch, *line) == 0
    document = json.loads((out / "segmentation.json").read_text())
    assert [(entry["stills"], entry["seeds"]) for entry in document["sizes"]] == [(2, [0, 1]), (5, [0, 1])]
    for entry in document["sizes"]:
        arms = entry["arms"]
        assert list(arms) == ["static", "affine", "elastic", "generated"]
        for name, arm in arms.items():
            assert arm["last"]["dice"]["n"] == 2
            assert arm["last"]["marked"]["n"] == 1
            difference = arm["generated_minus"].get("last", {"mean": 0.0})["mean"]
            assert difference == pytest.approx(arms["generated"]["last"]["dice"]["mean"] - arm["last"]["dice"]["mean"])
            assert np.mean(arm["dice_by_seed"]) == pytest.approx(arm["last"]["dice"]["mean"]), name
    results = [json.loads(path.read_text()) for path in (out / "runs").glob("*/result.json")]
    assert {(r["size"], r["pictures"], r["steps"]) for r in results} == {(2, 2 * COUNT, 4), (0, 5 * COUNT, 4)}
    assert "not better" in (out / "segmentation.md").read_text()
    assert (out / "segmentation.png").stat().st_size > 10_000

    gone = out / "runs" / "generated-2-1" / "result.json"
    before = json.loads(gone.read_text())
    gone.unlink()
    capsys.readouterr()
    assert call(script, monkeypatch, *line) == 0
    said = capsys.readouterr().out
    assert "generated-2-1: Dice" in said
    assert "static-2-1: Dice" not in said
    after = json.loads(gone.read_text())
    assert all(after[name] == before[name] for name in ("last", "best", "loss", "validation"))

    gone.unlink()
    assert call(script, monkeypatch, "report", str(out)) == 0
    assert json.loads((out / "segmentation.json").read_text())["sizes"][0]["seeds"] == [0]
    assert call(script, monkeypatch, *line, "--set", "steps=5") == 2
    assert "was begun with steps = 4" in capsys.readouterr().err
    mask = data / "s0_mask.png"
    before_edit = mask.read_bytes()
    write_png(mask, np.ones((40, 48), bool))
    assert call(script, monkeypatch, *line) == 2
    assert "was begun with stills_sha256" in capsys.readouterr().err
    mask.write_bytes(before_edit)
    moved = json.loads((out / "runs" / "static-2-0" / "result.json").read_text())
    moved["lesion"]["names"].reverse()
    (out / "runs" / "static-2-0" / "result.json").write_text(json.dumps(moved))
    assert call(script, monkeypatch, "report", str(out)) == 2
    assert "were tested on other stills" in capsys.readouterr().err
    mended = json.dumps({**moved, "lesion": {**moved["lesion"], "names": moved["lesion"]["names"][::-1]}})
    (out / "runs" / "static-2-0" / "result.json").write_text(mended)
    # A folder that was begun before stills were pinned is read, and goes on.
    kept = json.loads((out / "settings.json").read_text())
    assert len(kept.pop("stills_sha256")) == 64
    (out / "settings.json").write_text(json.dumps(kept))
    assert call(script, monkeypatch, "report", str(out)) == 0
    assert call(script, monkeypatch, *line) == 0
    assert "does not state its stills' hash" in capsys.readouterr().out
    small_weights(weights, seed=1)
    assert call(script, monkeypatch, *line) == 2
    assert "was begun with weights_sha256" in capsys.readouterr().err


def test_bad_lines_are_refused(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = str(tmp_path / "out"), str(stills_on_disk(tmp_path / "data"))
    assert call(script, monkeypatch, "run", out) == 2
    assert "DATA or --quick is needed" in capsys.readouterr().err
    assert call(script, monkeypatch, "run", out, data, "--set", "clips=4") == 2
    assert "cannot be shared by 4 clips" in capsys.readouterr().err
    assert call(script, monkeypatch, "run", out, data, "--quick", "--set", "sizes=[9]") == 2
    assert "9 training stills are asked for, 5 are there" in capsys.readouterr().err


def test_all_arms_have_equal_counts_and_begin_with_the_still(script: dict[str, Any], tmp_path: Path) -> None:
    data = stills_on_disk(tmp_path / "data")
    weights = small_weights(tmp_path / "w.safetensors")
    study = script["Study"](tmp_path / "out", settings(script, data, weights=str(weights)))
    still = study.stills[0]
    made: dict[str, tuple[Frames, Mask]] = {arm: study.pictures.of(still, arm) for arm in (*script["ARMS"], "moved")}
    first, inside = made["static"][0][0], made["static"][1][0]
    assert 0.05 < inside.mean() < 0.3
    for arm, (pictures, masks) in made.items():
        assert pictures.shape == masks.shape == (COUNT, SIDE, SIDE)
        assert (pictures.dtype, masks.dtype) == (np.uint8, np.bool_)
        np.testing.assert_array_equal(pictures[0], first)
        np.testing.assert_array_equal(masks[0], inside)
        changed = [k for k in range(1, COUNT) if not np.array_equal(pictures[k], first)]
        assert len(changed) == (0 if arm == "static" else COUNT - 1), arm
        again = study.pictures.of(still, arm)
        np.testing.assert_array_equal(again[0], pictures)
        # The lesion is bright: its mask must have gone where the picture has.
        if arm in ("affine", "elastic"):
            for picture, mask in zip(pictures, masks, strict=True):
                overlap = (mask & (picture > 180)).sum() / (mask | (picture > 180)).sum()
                assert overlap > 0.75, arm


def test_two_arms_see_the_same_stills_in_the_same_order(script: dict[str, Any]) -> None:
    network = sys.modules["segmentation_network"]
    drawn = [network.batch(1, step, 6, COUNT, 64) for step in (3, 3, 4)]
    for name in ("still", "picture", "flip", "gain", "shift"):
        np.testing.assert_array_equal(getattr(drawn[0], name), getattr(drawn[1], name))
        assert not np.array_equal(getattr(drawn[0], name), getattr(drawn[2], name))
    assert set(drawn[0].still) == set(range(6))
    assert set(drawn[0].picture) == set(range(COUNT))
    black = torch.zeros(2, COUNT, SIDE, SIDE, dtype=torch.uint8)
    starts = [begin(network, black, black > 0, seed).network.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def begin(network: Any, pictures: torch.Tensor, masks: torch.Tensor, seed: int, steps: int = 4) -> Any:
    return network.Training(
        pictures, masks, seed, steps, size=4, rate=5e-3, width=8, slope=0.01, bf16=False, device=torch.device("cpu")
    )


@pytest.mark.parametrize("slope", [0.0, 0.01])
def test_a_channel_that_is_off_everywhere_can_come_back_only_with_a_slope(script: dict[str, Any], slope: float) -> None:
    network = sys.modules["segmentation_network"].UNet(8, slope)
    norm = network.up[-1][-2]
    with torch.no_grad():
        norm.bias.fill_(-9.0)
    network(torch.linspace(-1, 1, 2 * SIDE * SIDE).reshape(2, 1, SIDE, SIDE)).sum().backward()
    assert (norm.bias.grad.abs().sum() > 0) == (slope > 0)


def test_the_network_overfits_four_pictures(script: dict[str, Any]) -> None:
    network = sys.modules["segmentation_network"]
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    masks = np.stack([(rows - a) ** 2 + (columns - b) ** 2 < 36 for a, b in ((9, 9), (20, 12), (14, 22), (22, 22))])
    # Of the same mean gray as its surroundings: only texture tells the lesion.
    texture = rng.normal(0, 1, masks.shape) * np.where(masks, 15, 60) + 128
    pictures = torch.from_numpy(texture.clip(0, 255).astype(np.uint8))
    training = begin(network, pictures[:, None], torch.from_numpy(masks)[:, None], 0, steps=90)
    before = training.probabilities(pictures).numpy() > 0.5
    losses = [training.advance() for _ in range(90)]
    after = training.probabilities(pictures).numpy() > 0.5
    assert np.mean([network.dice(a, b) for a, b in zip(before, masks, strict=True)]) < 0.4
    assert np.mean([network.dice(a, b) for a, b in zip(after, masks, strict=True)]) > 0.93
    assert losses[-1] < 0.6 * losses[0]


def test_measures_agree_with_plain_references(script: dict[str, Any]) -> None:
    network = sys.modules["segmentation_network"]
    rng = np.random.default_rng(1)
    empty = np.zeros((12, 20), bool)
    for _ in range(5):
        a, b = rng.random((2, 12, 20)) < 0.3
        first, second = ({(int(y), int(x)) for y, x in np.argwhere(mask)} for mask in (a, b))
        assert network.dice(a, b) == pytest.approx(2 * len(first & second) / (len(first) + len(second)))
        assert network.iou(a, b) == pytest.approx(len(first & second) / len(first | second))
        borders = [_border(cells, a.shape) for cells in (first, second)]
        away = [
            [min(np.hypot(y - v, x - u) for v, u in other) for y, x in own] for own, other in (borders, borders[::-1])
        ]
        assert network.hd95(a, b) == pytest.approx(max(np.percentile(values, 95) for values in away) / 20)
    assert network.dice(a, a) == network.iou(a, a) == 1.0
    assert network.hd95(a, a) == 0.0
    assert network.dice(a, empty) == network.iou(a, empty) == 0.0
    assert network.hd95(a, empty) == network.hd95(empty, a) == 1.0


def _border(cells: set[tuple[int, int]], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cells with a neighbour, above, below, left or right, that is not among them or outside of the picture."""
    return [(y, x) for y, x in cells if {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} - cells]


def test_no_group_is_on_two_sides(script: dict[str, Any], tmp_path: Path) -> None:
    pictures = sys.modules["segmentation_pictures"]
    data = stills_on_disk(tmp_path / "data")
    stills = pictures.stills_of(data)
    for size in (2, 4, 0):
        for seed in range(2):
            chosen = pictures.subset(stills, size, seed)
            assert len(chosen) == (size or 5)
            assert {still.split for still in chosen} == {"train"}
            assert any(still.masks for still in chosen)
    assert pictures.subset(stills, 4, 1)[:2] == pictures.subset(stills, 2, 1)
    text = (data / "manifest.csv").read_text()
    (data / "manifest.csv").write_text(text.replace(",g9,", ",g0,"))
    with pytest.raises(DataError, match="g0"):
        pictures.stills_of(data)


def test_the_reserved_groups_are_tested_on(script: dict[str, Any], tmp_path: Path) -> None:
    from train_bundled import busi_split

    pictures = sys.modules["segmentation_pictures"]
    rows = ["file,class_label,patient_or_group"]
    for k in range(120):
        name = f"images/busi/benign/benign ({k})"
        for file in (f"{name}.png", f"{name}_mask.png", f"{name}_mask_1.png"):
            write_png(tmp_path / file, still_pixels(k))
            rows.append(f"{file},benign,busi-{k // 2}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    stills = pictures.stills_of(tmp_path)
    assert len(stills) == 120
    assert all(len(still.masks) == 2 for still in stills)
    for still in stills:
        assert (still.split == "test") == (busi_split(still.group) == "reserved")

    @dataclass
    class Info:
        training_groups: tuple[str, ...]
        clip_sha256: tuple[str, ...] = ()

    seen, unseen = (next(s.group for s in stills if (s.split == "test") == held) for held in (True, False))
    pictures.check_unseen(Info((unseen,)), stills)
    with pytest.raises(DataError, match=f"group '{seen}', which is tested on"):
        pictures.check_unseen(Info((unseen, seen)), stills)


def test_the_bundled_weights_never_saw_the_test_stills(script: dict[str, Any], shared_data: Path) -> None:
    from us_i2v.weights import load_weights

    pictures = sys.modules["segmentation_pictures"]
    stills = pictures.stills_of(shared_data / "data")
    assert {still.split for still in stills} == {"train", "val", "test"}
    assert sum(still.split == "test" and bool(still.masks) for still in stills) == 119
    pictures.check_unseen(load_weights().header, stills)
    still = next(still for still in stills if len(still.masks) > 1)
    picture, mask = still.read(128)
    assert max(picture.shape) == 128
    whole = read_masks(still.masks, read_still(still.path).shape[:2])
    assert mask.mean() == pytest.approx(whole.mean(), rel=0.03)


def test_arms_are_judged_by_the_fixed_rule(script: dict[str, Any]) -> None:
    report = sys.modules["segmentation_report"]
    rng = np.random.default_rng(0)
    hard, groups = rng.uniform(0.2, 0.9, 60), [f"g{k // 2}" for k in range(60)]

    def row(arm: str, more: float) -> Any:
        dice = hard + more + rng.normal(0, 0.02, 60)
        values = {"dice": dice, "marked": np.zeros(0)}
        return report.Row(arm, 16, (0,), {"last": values, "best": values}, (0.5,), {"lesion": groups, "normal": []})

    ours, others = row("generated", 0.05), [row(arm, 0.0) for arm in ("static", "affine", "elastic")]
    assert report.helps([*others, ours])
    found = ours.minus(others[0])
    assert found.low < 0.05 < found.high
    assert found.high - found.low < 0.03
    assert not report.helps([*others[:2], row("elastic", 0.05), ours])
    assert report.helps([*others, ours, row("moved", 0.1)])  # in no rule
    assert ours.interval("marked") is None
