"""Training of a classifier: learns, resumes bitwise, writes what it is, refuses leaks; and prediction from its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
import numpy as np
import pytest
import torch

from tests.classifier_clips import LABELS, RECORD, phantom_clips, write_real, write_synthetic
from tests.factories import small_weights
from us_i2v.classifier import load_classifier, save_classifier, spread_windows, video_probabilities
from us_i2v.data.mixing import MixConfig
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, StoredClip
from us_i2v.data.writers import write_clip
from us_i2v.errors import ConfigError, DataError, UsI2VError, WeightsError
from us_i2v.models.classifiers import ClassifierConfig, build_classifier
from us_i2v.training.classifier import (
    ClassifierOptimiser,
    ClassifierTask,
    ClassifierTraining,
    pretrained_file,
    train_classifier,
)
from us_i2v.training.classifier_data import Diet, Sources, gather_diet
from us_i2v.training.report import Silent
from us_i2v.weights import load_weights, read_tensors, save_weights, write_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIPS = ClipsConfig(stride=1, drop_repeats=False)
STILLS = [{"label": label, "group": f"still-{label}-{k}"} for label in LABELS for k in range(3)]


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def settings(steps: int = 4, *, name: str = "atm", **changes) -> ClassifierTraining:
    optimiser = ClassifierOptimiser(steps=steps, batch_size=4, validate_every=2, warmup=1, seed=1, learning_rate=2e-3)
    model = ClassifierConfig(name=name, width=0.125, size=64, segments=2)
    return ClassifierTraining(**({"model": model, "clips": CLIPS, "optimiser": optimiser, "windows": 2} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real, made (synthetic), generator.safetensors that made it, and one cache for all."""
    root = tmp_path_factory.mktemp("diets")
    write_real(root / "real")
    digest = load_weights(small_weights(root / "generator.safetensors")).sha256
    write_synthetic(root / "made", STILLS, digest)
    return root


def diet(folder: Path, mix: MixConfig, notes: Notes | None = None, *, clips: ClipsConfig = CLIPS, **changes) -> Diet:
    given = {"synthetic": (folder / "made",), "generators": (folder / "generator.safetensors",)}
    sources = Sources((folder / "real",), **({} if mix.diet == "real" else given) | changes)
    return gather_diet(sources, folder / "cache", 64, clips, mix, crf=0, classes=(), seed=0, reporter=notes or Notes())


def run(folder: Path, out: Path, config: ClassifierTraining, *, resume: bool = False, **changes) -> None:
    sources = Sources((folder / "real",), **changes)
    train_classifier(sources, out, config, cache=folder / "cache", resume=resume, reporter=Notes(), device="cpu")


def test_a_run_leaves_weights_that_say_what_they_are(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run", settings(notes="phantoms"))
    loaded = load_classifier(tmp_path / "run")
    header = loaded.header
    assert header.classes == LABELS
    assert (header.diet, header.real_clips, header.synthetic_clips) == ("real", 4, 0)
    assert header.training_groups == ("p0", "p1", "p4", "p5")
    assert len(header.clip_sha256) == 4
    assert (header.notes, header.model.name, header.clips, header.crf) == ("phantoms", "atm", CLIPS, 18)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert {"val_loss", "val_macro_f1", "val_accuracy", "val_auc", "val_waiting"} <= rows[-1].keys()
    # The file holds the averaged weights of the last step.
    tensors = read_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]
    for name, value in loaded.network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, tensors[f"ema.classifier.{name}"])


@pytest.mark.parametrize("name", ["tsm", "atm"])
def test_four_steps_equal_two_and_a_resumed_two(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise, dropout and dropped branches included, whatever the threads that make batches and global state."""
    run(folder, tmp_path / "whole", settings(name=name, workers=2))
    batch = ClassifierTask.batch

    def stop(self: ClassifierTask, step: int, rank: int, world: int):
        if step == 2:
            raise KeyboardInterrupt
        return batch(self, step, rank, world)

    monkeypatch.setattr(ClassifierTask, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "parts", settings(name=name, workers=2))
    monkeypatch.undo()
    torch.manual_seed(99)
    run(folder, tmp_path / "parts", settings(name=name, workers=2), resume=True)
    whole, parts = (read_tensors(tmp_path / part / "checkpoint.safetensors")[1] for part in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_workers_do_not_change_batches(folder: Path, tmp_path: Path) -> None:
    found = diet(folder, MixConfig())
    batches = []
    for workers in (0, 2):
        task = ClassifierTask(settings(workers=workers), found, tmp_path, pretrained=None, reporter=Notes())
        batches.append([task.batch(step, 0, 1) for step in range(3)])
        assert task.batches is not None
        task.batches.close()
    for (first, names), (second, others) in zip(*batches, strict=True):
        assert names == others
        assert all(torch.equal(first[key], second[key]) for key in first)
    ranks = ClassifierTask(settings(workers=0), found, tmp_path, pretrained=None, reporter=Notes())
    half = [ranks._make(0, rank, 2) for rank in (0, 1)]
    assert [*half[0][1], *half[1][1]] == batches[0][0][1][0::2] + batches[0][0][1][1::2]
    assert int(half[0][0]["seed"]) != int(half[1][0]["seed"])


def test_dropout_leaves_the_global_generator_alone(folder: Path, tmp_path: Path) -> None:
    task = ClassifierTask(
        settings(name="tsm", workers=0), diet(folder, MixConfig()), tmp_path, pretrained=None, reporter=Notes()
    )
    batch, _ = task.batch(0, 0, 1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    losses = [float(task.module.train()(batch)[0].detach()) for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    assert losses[0] == losses[1]
    assert float(task.module(batch | {"seed": batch["seed"] + 1})[0].detach()) != losses[0]


@pytest.mark.parametrize(
    ("mix", "real", "synthetic"),
    [
        (MixConfig(), 4, 0),
        (MixConfig(diet="synthetic"), 0, 6),
        (MixConfig(diet="both"), 4, 6),
        (MixConfig(diet="both", ratio=1), 4, 4),
        (MixConfig(diet="both", balance=True), 4, 0),
    ],
    ids=["real", "synthetic", "both", "ratio", "balance"],
)
def test_diets(folder: Path, mix: MixConfig, real: int, synthetic: int) -> None:
    found = diet(folder, mix)
    assert (found.real, len(found.train) - found.real) == (real, synthetic)
    assert found.classes == LABELS
    # Validation is real whatever the diet, and nobody is on both sides.
    assert {clip.group for clip in found.held} == {"p2", "p6"}
    assert {clip.source for clip in found.held} == {"real"}
    assert len(found.stills) == synthetic
    assert len(found.generators) == bool(synthetic)
    strata = {clip.source for clip in found.train}
    assert set(found.weights) == strata


def test_shares_of_windows(folder: Path, tmp_path: Path) -> None:
    found = diet(folder, MixConfig(diet="both", share=0.25))
    task = ClassifierTask(settings(workers=0), found, tmp_path, pretrained=None, reporter=Notes())
    made = {clip.name for clip in found.train if clip.source.startswith("synthetic")}
    drawn = [task.sampler.draw(step, k).name in made for step in range(100) for k in range(4)]
    assert np.mean(drawn) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400) ** 0.5)


def leaky(folder: Path, out: Path, change: dict[str, str]) -> Path:
    digest = load_weights(folder / "generator.safetensors").sha256
    return write_synthetic(out, [*STILLS, {"label": "benign", "group": "still-9"} | change], digest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": "p3"}, "group 'p3' is held out"),
        ({"group": "p2"}, "group 'p2'"),
        ({"split": "test"}, "of split test"),
    ],
)
def test_a_held_out_groups_still_is_refused_or_left_out(
    folder: Path, tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    made = leaky(folder, tmp_path / "leaky", change)
    with pytest.raises(DataError, match=f"1 synthetic clips may not.*benign_6.mp4.*{reason}"):
        diet(folder, MixConfig(diet="both"), synthetic=(made,))
    notes = Notes()
    found = diet(folder, MixConfig(diet="both"), notes, synthetic=(made,), drop_leaks=True)
    assert len(found.train) == 4 + 6
    assert any("left out: 1 of 7 synthetic clips" in line and reason in line for line in notes.lines)


def test_a_generator_that_saw_the_held_out_side_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = load_weights(folder / "generator.safetensors")
    header = weights.header.model_copy(update={"training_groups": ("p9", "p7")})
    save_weights(tmp_path / "saw.safetensors", header, weights.tensors)
    made = write_synthetic(tmp_path / "made", STILLS, load_weights(tmp_path / "saw.safetensors").sha256)
    with pytest.raises(DataError, match="trained on group 'p7', which is held out"):
        diet(folder, MixConfig(diet="both"), synthetic=(made,), generators=(tmp_path / "saw.safetensors",))
    with pytest.raises(DataError, match="nobody knows on what its generator"):
        diet(folder, MixConfig(diet="both"), synthetic=(made,))
    with pytest.raises(DataError, match=r"No clip is left to train on"):
        diet(folder, MixConfig(diet="synthetic"), synthetic=(made,), drop_leaks=True)


def test_validation_groups_that_are_drawn_are_guarded_too(folder: Path, tmp_path: Path) -> None:
    """Without stated splits the validation groups are known only after drawing."""
    real = write_real(tmp_path / "real", splits=False)
    clips = CLIPS.model_copy(update={"validation": 0.3})
    plain = gather_diet(
        Sources((real,)), folder / "cache", 64, clips, MixConfig(), crf=0, classes=(), seed=0, reporter=Notes()
    )
    held = sorted({clip.group for clip in plain.held})
    assert held
    made = leaky(folder, tmp_path / "leaky", {"group": held[0]})
    sources = Sources((real,), (made,), (folder / "generator.safetensors",))
    with pytest.raises(DataError, match=f"group '{held[0]}' is held out"):
        gather_diet(
            sources, folder / "cache", 64, clips, MixConfig(diet="both"), crf=0, classes=(), seed=0, reporter=Notes()
        )


def test_what_cannot_be_a_diet_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds generated clips"):
        gather_diet(
            Sources((folder / "made",)),
            tmp_path,
            64,
            CLIPS,
            MixConfig(),
            crf=0,
            classes=(),
            seed=0,
            reporter=Notes(),
        )
    with pytest.raises(ConfigError, match="Diet 'real' does not fit 1 folders"):
        diet(folder, MixConfig(), synthetic=(folder / "made",))
    with pytest.raises(ConfigError, match="Diet 'both' does not fit 0 folders"):
        diet(folder, MixConfig(diet="both"), synthetic=())
    with pytest.raises(DataError, match="No real clip is of class x or y"):
        gather_diet(
            Sources((folder / "real",)),
            tmp_path,
            64,
            CLIPS,
            MixConfig(),
            crf=0,
            classes=("x", "y"),
            seed=0,
            reporter=Notes(),
        )


def test_a_clip_with_a_generators_record_is_no_real_clip(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real")
    write_clip(real / "benign_2.npz", phantom_clips()[2][1], 20.0, record=RECORD)
    with pytest.raises(DataError, match=r"benign_2.npz' was generated, by the record in it \(1 of 6 clips\)"):
        gather_diet(
            Sources((real,)), tmp_path / "c", 64, CLIPS, MixConfig(), crf=0, classes=(), seed=0, reporter=Notes()
        )
    assert not (tmp_path / "c").exists()


def test_other_classes_are_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    digest = load_weights(folder / "generator.safetensors").sha256
    made = write_synthetic(tmp_path / "made", [*STILLS, {"label": "normal", "group": "n"}], digest)
    notes = Notes()
    found = diet(folder, MixConfig(diet="both"), notes, synthetic=(made,))
    assert len(found.train) == 10
    assert "left out: 1 synthetic clips without a label or of other classes than benign, malignant" in notes.lines


def test_pretrained_weights_are_put_in_and_named(folder: Path, tmp_path: Path) -> None:
    model = ClassifierConfig(name="tsm", width=0.125, size=64, segments=2)
    torch.manual_seed(3)
    published = {
        f"module.base_model.{key}": value
        for key, value in build_classifier(model, 9).state_dict().items()
        if not key.startswith(("fc.", "standardise."))
    }
    write_tensors(tmp_path / "tsm.safetensors", published, {})
    config = settings(name="tsm", workers=0)
    task = ClassifierTask(
        config,
        diet(folder, MixConfig()),
        tmp_path,
        pretrained=tmp_path / "tsm.safetensors",
        reporter=(notes := Notes()),
    )
    state = task.module.state_dict()
    assert torch.equal(state["classifier.layer3.2.conv2.weight"], published["module.base_model.layer3.2.conv2.weight"])
    assert any("2 stay new" in line for line in notes.lines)
    task.export(task.module)
    assert len(load_classifier(tmp_path / "weights.safetensors").header.pretrained) == 64
    with pytest.raises(WeightsError, match="no place in atm"):
        ClassifierTask(
            settings(), diet(folder, MixConfig()), tmp_path, pretrained=tmp_path / "tsm.safetensors", reporter=Notes()
        )
    with pytest.raises(WeightsError, match="do not exist"):
        run(folder, tmp_path / "run", settings(pretrained=str(tmp_path / "missing.safetensors")))


def test_pretrained_weights_may_lie_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    write_tensors(file, {"conv1.weight": torch.zeros(2)}, {})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    asked = []

    def download(repo: str, file_name: str, revision: str | None = None) -> str:
        asked.append((repo, file_name, revision))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert pretrained_file(f"hf://org/net@v1/model.safetensors?sha256={digest}") == file
    assert asked == [("org/net", "model.safetensors", "v1")]
    assert pretrained_file("") is None
    assert pretrained_file("net.safetensors") == Path("net.safetensors")
    with pytest.raises(WeightsError, match="is needed"):
        pretrained_file(f"hf://org/net/model.safetensors?sha256={'0' * 64}")
    with pytest.raises(WeightsError, match="No sha256 is known"):
        pretrained_file("hf://org/net/model.safetensors")


def test_files_of_other_kinds_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds a generator's weights"):
        load_classifier(folder / "generator.safetensors")
    run(folder, tmp_path / "run", settings(steps=1))
    with pytest.raises(WeightsError, match="holds a classifier, no generator"):
        load_weights(tmp_path / "run")
    loaded = load_classifier(tmp_path / "run")
    metadata, tensors = read_tensors(loaded.path)
    values = json.loads(metadata["us_i2v_classifier"])
    for change, message in (({"format_version": 2}, "classifier format 2"), ({"classes": ["a"]}, "damaged header")):
        write_tensors(tmp_path / "bad.safetensors", tensors, {"us_i2v_classifier": json.dumps(values | change)})
        with pytest.raises(WeightsError, match=message):
            load_classifier(tmp_path / "bad.safetensors")
    header = metadata["us_i2v_classifier"]
    hostile = {
        "deep": "[" * 100_000,
        "digits": header.replace('"format_version":1', f'"format_version":{"1" * 5000}'),
        "no object": "[]",
        "larger": json.dumps(values | {"model": {"name": "c3d", "size": 512}}),
    }
    for name, text in hostile.items():
        write_tensors(tmp_path / "bad.safetensors", tensors, {"us_i2v_classifier": text})
        with pytest.raises(WeightsError, match="another network" if name == "larger" else "damaged header") as caught:
            load_classifier(tmp_path / "bad.safetensors")
        assert len(str(caught.value)) < 500, name
    del tensors["classifier.norm.bias"]
    write_tensors(tmp_path / "bad.safetensors", tensors, metadata)
    with pytest.raises(UsI2VError, match=r"norm.bias"):
        load_classifier(tmp_path / "bad.safetensors")


def test_saved_and_loaded_classifiers_answer_alike(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run", settings(name="c3d", steps=1))
    loaded = load_classifier(tmp_path / "run")
    save_classifier(tmp_path / "copy.safetensors", loaded.header, loaded.network)
    again = load_classifier(tmp_path / "copy.safetensors")
    clip = torch.rand(2, 1, 16, 64, 64)
    assert torch.equal(loaded.network(clip), again.network(clip))
    assert again.sha256 == loaded.sha256


def sampler_of(frames: int, interval: float, config: ClipsConfig) -> Iterator[tuple[ClipSampler, StoredClip]]:
    clip = StoredClip("c", Path("none"), None, frames, interval, "benign", "g", "real", "0")
    yield ClipSampler([clip], config, length=16, seed=0), clip


@pytest.mark.parametrize(
    ("frames", "interval", "config", "wanted", "count", "expected"),
    [
        (16, 0.1, ClipsConfig(), 0.1, 5, [(0, 1)]),
        (18, 0.1, ClipsConfig(), 0.1, 5, [(0, 1), (1, 1), (2, 1)]),
        (100, 0.02, ClipsConfig(), 0.049, 1, [(34, 2)]),
        (100, 0.02, ClipsConfig(), 0.11, 3, [(0, 5), (12, 5), (24, 5)]),
        (46, 0.04, ClipsConfig(stride=3), 0.5, 4, [(0, 3)]),
    ],
)
def test_windows_spread_over_a_video(frames, interval, config, wanted, count, expected) -> None:
    ((sampler, clip),) = sampler_of(frames, interval, config)
    assert spread_windows(sampler, clip, wanted, count) == expected


def test_a_videos_answer_is_the_mean_of_its_windows(folder: Path) -> None:
    found = diet(folder, MixConfig())
    sampler = ClipSampler(found.held, CLIPS, length=16, seed=0, augment=False)
    torch.manual_seed(0)
    network = build_classifier(settings().model, 2).eval()
    clip = sampler.clips[0]
    got = video_probabilities(network, sampler, clip, 0.05, 3)
    frames = np.load(clip.frames)
    by_hand = []
    for start in (0, 1, 2):
        window = torch.from_numpy(frames[start : start + 16]).float()[None, None] / 255
        with torch.no_grad():
            by_hand.append(network(window).double().softmax(-1)[0].numpy())
    np.testing.assert_allclose(got, np.mean(by_hand, axis=0), atol=1e-6)
    assert got.sum() == pytest.approx(1)
