"""A privacy filter on the phantom: planted copies are found, other phantoms are not; and on real clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.cli.conftest import one_line_error
from tests.factories import small_weights
from tests.metrics.real import lung_clips
from tests.privacy.phantoms import COPIED, FAST, HELD, LENGTH, OTHERS, TRAIN, Phantoms, phantom_clip
from us_i2v.cli.app import app
from us_i2v.cli.privacy import COPIES
from us_i2v.errors import DataError, WeightsError
from us_i2v.evaluation.planted import STRENGTHS, planted
from us_i2v.evaluation.privacy import check_privacy
from us_i2v.evaluation.privacy_clips import Queries, query_windows
from us_i2v.evaluation.privacy_report import document, markdown
from us_i2v.latents_file import save_latent
from us_i2v.pipeline import ImageToVideo
from us_i2v.privacy import FILTER, REFERENCE, load_filter
from us_i2v.seeding import numpy_generator
from us_i2v.training.privacy import fit_privacy
from us_i2v.training.report import Silent
from us_i2v.weights import load_weights


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Phantoms:
    torch.set_num_threads(1)
    clips = [phantom_clip(seed) for seed in range(TRAIN + HELD + OTHERS)]
    return Phantoms(tmp_path_factory.mktemp("privacy"), clips, (TRAIN, HELD, OTHERS))


def test_planted_copies_are_found_and_independents_are_not(phantoms: Phantoms, tmp_path: Path) -> None:
    rng = numpy_generator(0, "planted")
    copies = {f"copy{k}.mp4": planted(phantoms.clips[k], STRENGTHS["medium"], rng) for k in range(COPIED)}
    others = {f"other{k}.mp4": phantoms.clips[TRAIN + HELD + k] for k in range(OTHERS)}
    result = phantoms.check(phantoms.write(tmp_path / "clips", copies | others))
    by_name = {clip.name: clip for clip in result.clips}
    for k in range(COPIED):
        matches = by_name[f"copy{k}.mp4"].matches
        for measure in ("siamese", "correlation"):
            assert matches[measure].copy, (k, measure, matches[measure])
            assert matches[measure].clip == f"c{k:02d}.npz"
    # The search for near-copies looks at pictures whose hashes are close, and misses some.
    assert sum(by_name[f"copy{k}.mp4"].seed is not None for k in range(COPIED)) >= COPIED - 1
    for measure in ("siamese", "correlation"):
        wrong = [k for k in range(OTHERS) if by_name[f"other{k}.mp4"].matches[measure].copy]
        assert len(wrong) <= 2, (measure, wrong)
        highest = max(by_name[f"other{k}.mp4"].matches[measure].similarity for k in range(OTHERS))
        lowest = min(by_name[f"copy{k}.mp4"].matches[measure].similarity for k in range(COPIED))
        assert highest < lowest, measure
    assert not any(by_name[f"other{k}.mp4"].seed for k in range(OTHERS))
    assert result.counts["correlation"].share.n == COPIED + OTHERS
    assert result.largest_share >= COPIED / (COPIED + OTHERS)


def test_real_clips_recoded_are_found(shared_data: Path, tmp_path: Path) -> None:
    """Eight training patients, eight held out, four that the filter never saw."""
    lungs = Phantoms(tmp_path, lung_clips(shared_data, 20), (8, 8, 4))
    rng = numpy_generator(0, "planted")
    copies = {f"copy{k}.mp4": planted(lungs.clips[k], STRENGTHS["mild"], rng) for k in range(4)}
    others = {f"other{k}.mp4": lungs.clips[16 + k] for k in range(4)}
    result = lungs.check(lungs.write(tmp_path / "clips", copies | others))
    by_name = {clip.name: clip for clip in result.clips}
    for measure in ("siamese", "correlation"):
        found = [by_name[f"copy{k}.mp4"].matches[measure] for k in range(4)]
        assert [match.clip for match in found] == [f"c{k:02d}.npz" for k in range(4)]
        assert all(match.copy for match in found), measure
        assert sum(by_name[f"other{k}.mp4"].matches[measure].copy for k in range(4)) <= 1


def test_windows_are_compared_in_parts_without_effect(phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = phantoms.check(phantoms.data)
    monkeypatch.setattr("us_i2v.privacy.comparing._BATCH", 5)
    for one, other in zip(whole.clips, phantoms.check(phantoms.data).clips, strict=True):
        for measure, match in one.matches.items():
            assert other.matches[measure].clip == match.clip
            assert other.matches[measure].similarity == pytest.approx(match.similarity, abs=1e-5)


def test_exact_copy_has_its_latent_too(phantoms: Phantoms, tmp_path: Path) -> None:
    result = phantoms.check(phantoms.write(tmp_path / "clips", {"copy.npz": phantoms.clips[2]}))
    (clip,) = result.clips
    assert clip.matches["latent"].similarity > 0.999
    assert {match.clip for match in clip.matches.values()} == {"c02.npz"}
    assert clip.seed is not None
    assert clip.seed.similarity == 1
    assert {match.windows for match in clip.matches.values()} == {1}
    assert clip.matches["latent"].as_high == 1 / (1 + HELD)
    assert result.counts["latent"].copies == 1
    assert result.counts["latent"].by_still is None  # latents hold no still
    assert result.counts["siamese"].by_still == 1


def test_still_is_found_mirrored_too(phantoms: Phantoms, tmp_path: Path) -> None:
    clips = {"copy.npz": np.ascontiguousarray(phantoms.clips[2][..., ::-1])}
    (clip,) = phantoms.check(phantoms.write(tmp_path / "clips", clips)).clips
    assert clip.seed is not None
    assert (clip.seed.clip, clip.seed.group, clip.seed.mirrored) == ("c02.npz", "p2", True)
    assert clip.seed.similarity == 1


def test_strangers_of_several_windows_are_measured_by_clips_of_as_many(phantoms: Phantoms, tmp_path: Path) -> None:
    """Windows of 16 frames, every second one: 31 long; 80 frames hold two."""
    strangers = {f"other{k}.npz": phantom_clip(TRAIN + HELD + k, 5 * LENGTH) for k in range(OTHERS)}
    copy = {"copy.npz": phantom_clip(1, 5 * LENGTH)}
    result = phantoms.check(phantoms.write(tmp_path / "clips", strangers | copy))
    fitted = load_filter(phantoms.run)
    for measure in ("siamese", "correlation"):
        two = fitted.held[measure].threshold(2, 0.95)
        assert two > fitted.held[measure].threshold(1, 0.95)
        assert {clip.matches[measure].windows for clip in result.clips} == {2}
        assert result.counts[measure].thresholds == (two, two)
        assert result.counts[measure].strangers == pytest.approx(1 / 13)  # of 24 windows: 12 sets of two
        flagged = [clip.name for clip in result.clips if clip.matches[measure].copy]
        assert "copy.npz" in flagged
        assert len(flagged) <= 3, (measure, flagged)


def test_thresholds_come_from_held_out_groups(phantoms: Phantoms) -> None:
    fitted = load_filter(phantoms.run)
    assert set(fitted.held) == {"siamese", "correlation", "latent"}
    for measure, held in fitted.held.items():
        assert (held.n_clips, held.n_groups) == (HELD, HELD)
        ranked = np.sort(held.similarities)  # place 0.95 * 25 = 23.75 of 24
        expected = ranked[22] + 0.75 * (ranked[23] - ranked[22])
        assert held.threshold(1, 0.95) == pytest.approx(expected), measure
        assert expected < ranked[-1]
        assert held.strangers(1, 0.95) == pytest.approx(0.05)
    assert fitted.header.held_groups == tuple(sorted(f"p{k}" for k in range(TRAIN, TRAIN + HELD)))
    assert fitted.header.held_auc is not None
    assert fitted.header.held_auc > 0.9


def test_training_data_can_be_read_again(phantoms: Phantoms, tmp_path: Path) -> None:
    folder = phantoms.write(tmp_path / "clips", {"copy.npz": phantoms.clips[1]})
    kept, read = phantoms.check(folder), phantoms.check(folder, train=[phantoms.data])
    assert read.notes[0].startswith(f"{TRAIN} of {TRAIN + HELD + OTHERS} clips of --train are among the {TRAIN}")
    for measure, match in kept.clips[0].matches.items():
        assert read.clips[0].matches[measure].similarity == pytest.approx(match.similarity, abs=2e-3)


def test_report_names_the_pairs(phantoms: Phantoms, tmp_path: Path) -> None:
    result = phantoms.check(phantoms.write(tmp_path / "clips", {"copy.npz": phantoms.clips[1]}))
    text = "\n".join(markdown(result))
    assert "| copy.npz | siamese | c01.npz | p1 |" in text
    found = json.loads(json.dumps(document(result), allow_nan=False))
    assert found["counts"]["siamese"]["copies"] == 1
    assert found["clips"][0]["matches"]["correlation"]["group"] == "p1"


def test_damaged_or_foreign_files_are_refused(phantoms: Phantoms, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no privacy filter"):
        load_filter(phantoms.weights)
    (tmp_path / FILTER).write_bytes((phantoms.run / FILTER).read_bytes())
    with pytest.raises(WeightsError, match="is missing"):
        check_privacy(Queries([phantoms.data]), tmp_path, phantoms.weights)
    (tmp_path / REFERENCE).write_bytes((phantoms.run / FILTER).read_bytes())
    with pytest.raises(WeightsError, match="not the training set"):
        check_privacy(Queries([phantoms.data]), tmp_path, phantoms.weights)
    other = small_weights(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(WeightsError, match="another first stage"):
        check_privacy(Queries([phantoms.data]), phantoms.run, other)


def run_line(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_fails_above_a_share(phantoms: Phantoms, tmp_path: Path) -> None:
    folder = phantoms.write(tmp_path / "clips", {"copy.npz": phantoms.clips[1]})
    line = ("privacy", "check", folder, "--privacy", phantoms.run, "--weights", phantoms.weights, "--device", "cpu")
    report = tmp_path / "report.md"
    done = run_line(*line, "-o", report)
    assert done.exit_code == 0, done.output
    assert "| siamese | 1 | 1 | 1.000 [0.207, 1.000], 1 groups | 0.050 | 1 |" in done.stdout
    assert "c01.npz" in report.read_text()
    assert json.loads(report.with_suffix(".json").read_text())["clips"][0]["name"] == "copy.npz"
    assert run_line(*line, "--fail-above", "0.5").exit_code == COPIES
    assert run_line(*line, "--fail-above", "1").exit_code == 0


def test_latents_and_samples_are_checked(phantoms: Phantoms, tmp_path: Path) -> None:
    model = ImageToVideo.from_pretrained(phantoms.weights, "cpu", 1)
    latent = model.encode(phantoms.clips[3])
    path = tmp_path / "latent.safetensors"
    save_latent(path, latent[None], space=model.latent_space, weights_sha256="ab" * 32, frames=LENGTH, fps=20.0)
    folder = phantoms.write(tmp_path / "clips", {"copy.npz": phantoms.clips[1]})
    result = check_privacy(Queries([folder], [path], samples=2), phantoms.run, phantoms.weights, device="cpu")
    drawn, again, saved = result.clips
    assert [drawn.name, again.name, saved.name] == ["copy.npz#1", "copy.npz#2", "latent.safetensors"]
    assert drawn.seed is not None
    assert drawn.matches["siamese"].clip == "c01.npz"
    assert set(saved.matches) == {"latent"}
    assert saved.matches["latent"].clip == "c03.npz"
    assert saved.matches["latent"].similarity > 0.999
    assert result.seeds is not None
    assert result.seeds.share.n == 2


def test_clip_of_a_windows_length_stays_whole(phantoms: Phantoms, tmp_path: Path) -> None:
    """Its repeated frames count, else it would be too short for a latent."""
    slow, clips = np.repeat(phantoms.clips[0][:8], 2, axis=0), FAST.clips.model_copy(update={"drop_repeats": True})
    path = phantoms.write(tmp_path / "clips", {"slow.npz": slow})
    fitted = load_filter(phantoms.run)
    dropping = replace(fitted, header=fitted.header.model_copy(update={"clips": clips}))
    weights, device = load_weights(phantoms.weights), torch.device("cpu")
    (window,) = query_windows(Queries([path]), dropping, weights, weights.autoencoder(), device, tmp_path)
    assert window.frames is not None
    assert len(window.frames) == LENGTH


def test_unusable_input_is_one_line(phantoms: Phantoms, tmp_path: Path) -> None:
    line = ("privacy", "check", "--privacy", phantoms.run, "--weights", phantoms.weights)
    assert "nothing to check" in one_line_error(run_line(*line))
    assert "does not exist" in one_line_error(run_line(*line, tmp_path / "none"))
    fit = ("privacy", "fit", phantoms.data, "-o", tmp_path / "run", "--weights", phantoms.weights)
    for width in (0, -16, 100_000):
        assert "widths" in one_line_error(run_line(*fit, "--set", f"network.widths=[{width}, 16, 16, 16]"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="1 training groups and 0 held-out clips"):
        fit_privacy([phantoms.data / "c00.npz"], phantoms.weights, tmp_path / "run", FAST, reporter=Silent())


def test_fit_command_writes_the_run_and_refuses_to_overwrite(phantoms: Phantoms, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("--set", "clips.drop_repeats=false", "--set", "network.embedding=16", "--set", "windows=1")
    line = ("privacy", "fit", phantoms.data, "-o", run, "--weights", phantoms.weights, "--device", "cpu")
    done = run_line(*line, *settings, "--steps", 2, "--batch-size", 4)
    assert done.exit_code == 0, done.output
    names = {path.name for path in run.iterdir()}
    assert names >= {FILTER, REFERENCE, "config.json", "checkpoint.safetensors", "metrics.jsonl"}
    header = load_filter(run).header
    assert (header.windows, header.network.embedding, header.clips.drop_repeats) == (1, 16, False)
    assert header.training_groups == tuple(sorted(f"p{k}" for k in range(TRAIN)))
    again = run_line(*line, *settings, "--steps", 2, "--batch-size", 4)
    assert again.exit_code == 2
    assert "already holds a run" in again.stderr
