"""Records in clips: written everywhere, read back, and what tampering looks like to `verify`."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import CliRunner

from tests.fakes import FakeGenerator, still_pixels, tree, write_busi, write_png
from us_i2v.augmentation.outputs import check_writable, mask_path, write_result
from us_i2v.cli.app import app
from us_i2v.data.clips import open_clip
from us_i2v.data.decoding.ffmpeg import ffmpeg_exe
from us_i2v.data.dicom.output import DicomOutput
from us_i2v.data.embedding import read_record
from us_i2v.data.verification import verify
from us_i2v.data.writers import write_clip
from us_i2v.errors import InputError, OutputError
from us_i2v.pipeline import GeneratedClip, ImageToVideo
from us_i2v.provenance import MAX_TEXT, Provenance, parse_line, read_sidecar, sidecar_path

NAMES = ("c.mp4", "c.mkv", "c.avi", "c.gif", "c.npz", "c.dcm", "c")
RECORD = Provenance(
    command="generate",
    still_sha256="12" * 32,
    weights_kind="lddm",
    weights_sha256="ab" * 32,
    seed=7,
    sampler="dpm-solver",
    steps=12,
    options={"frames": 16, "label": 'b\u00f6sartig; = # \\ "x"\n', "motion": 1.0, "size": None},
)


def made(colour: bool = False, masked: bool = True) -> GeneratedClip:
    still = still_pixels(3)
    if colour:
        still = np.stack([still, still // 2 + 40, 255 - still], axis=2)
    mask = np.zeros(still.shape[:2], bool)
    mask[10:20, 15:30] = True
    (clip,) = FakeGenerator()(still, mask=mask if masked else None, seed=2)
    return clip


def written(folder: Path, name: str, **given: bool) -> Path:
    dicom = DicomOutput(keep_text=True) if name.endswith(".dcm") else None
    write_result(made(**given), folder / name, exact=False, record=RECORD, dicom=dicom)
    return folder / name


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_container_holds_the_record_and_its_content(tmp_path: Path, name: str, colour: bool) -> None:
    path = written(tmp_path, name, colour=colour)
    record = read_record(path)
    assert record is not None
    same = {"content", "content_sha256", "fps"}
    assert record.model_dump(exclude=same) == RECORD.model_dump(exclude=same)
    assert record.content == ("packets" if name[-3:] in ("mp4", "mkv", "avi") else "frames")
    assert record.fps == 20.0
    mask = read_record(mask_path(path))
    assert mask is not None
    assert (mask.part, mask.seed) == ("mask", 7)
    assert verify(path).status == verify(mask_path(path)).status == "synthetic"
    sidecar_path(path).unlink(missing_ok=True)
    assert verify(path).status == "synthetic", "the record in the file is enough"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, mask_path(path).name])


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.avi", "c.gif", "c.npz", "c"])
def test_a_record_changes_neither_frames_nor_rate(tmp_path: Path, name: str) -> None:
    clip = made()
    for fps in (14.3, 29.97):
        plain = open_clip(write_clip(tmp_path / "plain" / name, clip.frames, fps))
        recorded = open_clip(write_clip(tmp_path / "recorded" / name, clip.frames, fps, record=RECORD))
        assert np.array_equal(plain.read(range(16)), recorded.read(range(16)))
        assert (plain.fps, plain.size, plain.n_frames) == (recorded.fps, recorded.size, recorded.n_frames)


@pytest.mark.parametrize("name", NAMES)
def test_same_record_same_bytes(tmp_path: Path, name: str) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, name)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def reencoded(path: Path, *options: str) -> None:
    """Encode a video again, metadata kept, as an editor would."""
    whole = path.with_name(f"old{path.suffix}")
    path.rename(whole)
    command = [ffmpeg_exe(), "-v", "error", "-i", str(whole), *options, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    whole.unlink()


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv"])
@pytest.mark.parametrize("beside", [True, False])
def test_reencoding_and_cutting_are_seen(tmp_path: Path, name: str, beside: bool) -> None:
    path = written(tmp_path, name)
    if not beside:
        sidecar_path(path).unlink()
    reencoded(path, *(("-c", "copy", "-frames:v", "5") if name == "c.mkv" else ("-crf", "30")))
    assert verify(path).status == "altered"


def test_removed_records_are_unknown_and_a_file_beside_still_tells(tmp_path: Path) -> None:
    path = written(tmp_path, "c.mp4")
    reencoded(path, "-map_metadata", "-1", "-c", "copy")
    assert verify(path).status == "altered"
    sidecar_path(path).unlink()
    assert (verify(path).status, verify(path).reason) == ("unknown", "no record")


def changed_pixel(path: Path) -> None:
    """Change one value of one frame, records kept."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["frames"] = arrays["frames"].copy()
        arrays["frames"][3, 5, 5] ^= 1
        np.savez(path, **arrays)
    elif path.suffix == ".dcm":
        raw = bytearray(path.read_bytes())
        raw[-700] ^= 1
        path.write_bytes(raw)
    elif path.is_dir():
        frame = path / "frame_0003.png"
        pixels = np.array(PillowImage.open(frame))
        pixels[5, 5] ^= 1
        PillowImage.fromarray(pixels).save(frame)
    else:
        raw = bytearray(path.read_bytes())
        raw[13 + 6] = 200  # the third colour of the table
        path.write_bytes(raw)


@pytest.mark.parametrize("name", ["c.npz", "c.dcm", "c", "c.gif"])
def test_one_changed_value_is_seen(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    changed_pixel(path)
    assert verify(path).status == "altered"
    sidecar_path(path).unlink(missing_ok=True)
    assert verify(path).status == "altered"


def test_a_changed_mask_or_record_beside_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path, "c.npz")
    whole = sidecar_path(path).read_text()
    mask_path(path).write_bytes(b"other")
    assert "mask" in verify(path).reason
    mask_path(path).unlink()
    assert verify(path).status == "synthetic"
    sidecar_path(path).write_text(whole.replace('"seed": 7', '"seed": 8'))
    assert (verify(path).status, "differ" in verify(path).reason) == ("altered", True)
    sidecar_path(path).write_text(whole[:100])
    assert verify(path).status == "altered"


def test_a_damaged_file_is_altered_if_it_had_a_record(tmp_path: Path) -> None:
    path = written(tmp_path, "c.mp4")
    path.write_bytes(path.read_bytes()[:500])
    assert verify(path).status == "altered"
    sidecar_path(path).unlink()
    assert verify(path).status == "unknown"


def test_a_damaged_folder_is_known_by_its_frames(tmp_path: Path) -> None:
    path = written(tmp_path, "c")
    about = path / "clip.json"
    whole = about.read_text()
    for text in (whole[:100], "[]", whole.replace('"seed": 7', '"seed": []'), "\u00ff"):
        about.write_bytes(text.encode("latin-1"))
        (path / "frame_0000.png").write_bytes(b"no picture")
        verdict = verify(path)
        assert (verdict.status, verdict.record is not None and verdict.record.seed) == ("altered", 7)
    others = write_clip(tmp_path / "a", made().frames, 20.0)
    (others / "clip.json").write_text("{")
    assert verify(others).status == "unknown"


def test_a_cut_array_file_still_names_its_record(tmp_path: Path) -> None:
    path = written(tmp_path, "c.npz")
    sidecar_path(path).unlink()
    others = write_clip(tmp_path / "a.npz", made().frames, 20.0)
    for file, status in ((path, "altered"), (others, "unknown")):
        file.write_bytes(file.read_bytes()[:-200])
        assert verify(file).status == status


def at_another_rate(path: Path, fps: float) -> None:
    """State another frame rate, frames and records kept."""
    if path.is_dir():
        about = json.loads((path / "clip.json").read_text())
        (path / "clip.json").write_text(json.dumps(about | {"fps": fps}))
    elif path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **(arrays | {"fps": np.array(fps)}))
    else:
        whole = path.rename(path.with_name(f"old{path.suffix}"))
        slower = ["-itsscale", f"{20 / fps:g}", "-i", str(whole), "-c", "copy"]
        subprocess.run([ffmpeg_exe(), "-v", "error", *slower, str(path)], check=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.npz", "c"])
def test_another_frame_rate_is_seen(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    sidecar_path(path).unlink(missing_ok=True)
    at_another_rate(path, 2.0)
    verdict = verify(path)
    assert (verdict.status, verdict.reason) == ("altered", "it states 2 frames a second, its record 20")


@pytest.mark.parametrize("name", NAMES)
def test_every_rate_is_the_recorded_one(tmp_path: Path, name: str) -> None:
    for number, (fps, count) in enumerate([(0.7, 2), (14.3, 3), (29.97, 16), (61.0, 2), (99.0, 7), (240.0, 16)]):
        dicom = DicomOutput(keep_text=True) if name.endswith(".dcm") else None
        (tmp_path / str(number)).mkdir()
        path = write_clip(tmp_path / str(number) / name, made().frames[:count], fps, record=RECORD, dicom=dicom)
        assert verify(path).reason.endswith(" are as they were made"), (fps, count)


def test_clips_of_others_are_unknown(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.gif", "a.npz", "a"):
        assert verify(write_clip(tmp_path / name, made().frames, 20.0)).status == "unknown"
    np.save(tmp_path / "a.npy", made().frames)
    assert verify(tmp_path / "a.npy").status == "unknown"
    with pytest.raises(InputError, match="does not exist"):
        verify(tmp_path / "missing.mp4")


def test_single_frames_say_what_they_are(tmp_path: Path) -> None:
    frame = written(tmp_path, "c") / "frame_0003.png"
    assert PillowImage.open(frame).text["us-i2v"].startswith("provenance={")
    assert verify(frame).status == "synthetic"
    assert json.loads((tmp_path / "c" / "clip.json").read_text())["provenance"]["seed"] == 7


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", "[" * 60_000, '{"seed": ' + "1" * 6000 + "}", "x" * (MAX_TEXT + 1), RECORD.line()[:-40]],
    ids=["open", "list", "empty", "deep", "digits", "long", "cut"],
)
def test_damaged_records_are_one_clear_error(text: str) -> None:
    with pytest.raises(InputError, match="record of 'here' is damaged"):
        parse_line(f"size=1x2 provenance={text}", "here")


def test_records_are_plain_lines_without_a_clock() -> None:
    line = RECORD.line()
    assert line.isascii()
    assert "\n" not in line
    assert "stamp" not in line
    assert parse_line(f"anything provenance={line}", "here") == RECORD
    assert parse_line("anything", "here") is None


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    sidecar_path(tmp_path / "c.mp4").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="another kind"):
        check_writable(tmp_path / "c.mp4")


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    fake = FakeGenerator()
    monkeypatch.setattr(ImageToVideo, "from_pretrained", lambda *_given, **_named: fake)
    return fake


def test_generate_records_still_seed_and_sampling(tmp_path: Path, generator: FakeGenerator) -> None:
    still = write_png(tmp_path / "still.png", still_pixels(1))
    assert run("generate", still, "-o", tmp_path / "c.mp4", "--seed", 5, "--motion", 0.5)[0] == 0
    sidecar = read_sidecar(tmp_path / "c.mp4.json")
    record = sidecar.record
    assert record.still_sha256 == hashlib.sha256(still.read_bytes()).hexdigest()
    assert sidecar.file_sha256 == hashlib.sha256((tmp_path / "c.mp4").read_bytes()).hexdigest()
    assert (record.command, record.seed, record.sampler, record.steps) == ("generate", 5, "dpm-solver", 12)
    assert (record.options["motion"], record.weights_sha256, record.stamp) == (0.5, "ab" * 32, None)
    first = tree(tmp_path)
    assert run("generate", still, "-o", tmp_path / "c.mp4", "--seed", 5, "--motion", 0.5)[0] == 0
    assert tree(tmp_path) == first
    assert run("generate", still, "-o", tmp_path / "c.mp4", "--stamp")[0] == 0
    stamp = read_sidecar(tmp_path / "c.mp4.json").record.stamp
    assert stamp is not None
    assert stamp.endswith("Z")


def test_verify_a_whole_data_set(tmp_path: Path, generator: FakeGenerator) -> None:
    data = write_busi(tmp_path / "stills", {"benign": 2, "normal": 1})
    for ending in ("npz", "png"):
        out = tmp_path / ending
        assert run("augment", data, out, "--ext", ending)[0] == 0
        code, said, _ = run("verify", out)
        assert (code, said.count(": synthetic (")) == (0, 3 + 2)
    record = read_record(tmp_path / "npz" / "benign" / "benign (1)_0.npz")
    assert record is not None
    assert (record.command, record.sampler) == ("augment", "dpm-solver")
    victim = next((tmp_path / "npz").rglob("*_0.npz"))
    changed_pixel(victim)
    code, said, _ = run("verify", "--json", tmp_path / "npz")
    assert code == 3
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["path"] for line in lines if line["status"] == "altered"] == [str(victim)]


def test_exit_codes_of_verify(tmp_path: Path) -> None:
    good = written(tmp_path, "good.mp4")
    other = write_clip(tmp_path / "other.gif", made().frames, 20.0)
    bad = shutil.copy(good, tmp_path / "bad.mp4")
    reencoded(Path(bad), "-c", "copy", "-frames:v", "4")
    assert run("verify", good)[0] == 0
    assert run("verify", good, other)[0] == 4
    assert run("verify", good, other, bad)[0] == 3
    code, out, error = run("verify", tmp_path / "missing.mp4")
    assert (code, out, error.count("\n")) == (2, "", 1)
    (tmp_path / "empty").mkdir()
    assert run("verify", tmp_path / "empty")[0] == 2
