"""Weights by name: a hub that is a folder stands in for the network."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.cli.conftest import one_line_error
from tests.factories import SMALL_AUTOENCODER, small_weights
from tests.training.conftest import write_clip
from us_i2v.cli.app import app
from us_i2v.errors import OutputError, WeightsError
from us_i2v.hub import fetch_weights, is_hub_name, model_card
from us_i2v.metrics.publishers import sha256_of
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.pipeline import ImageToVideo
from us_i2v.training.autoencoder import AutoencoderTraining, initial_state
from us_i2v.weights import load_weights

COMMIT = "c0ffee" + "0" * 34
REPO = "org/breast-lddm"


class NotThereError(huggingface_hub.errors.EntryNotFoundError, OSError):
    """What the hub answers for a file that a repository lacks."""


@dataclass
class Hub:
    """What the fake hub has and was asked."""

    folder: Path
    etag: str = ""
    size: int | None = None
    files: tuple[str, ...] = ("weights.safetensors", "README.md")
    asked: list[tuple[object, ...]] = field(default_factory=list)
    commits: list[dict[str, bytes]] = field(default_factory=list)
    private: bool = False


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    snapshot = tmp_path / "cache" / "snapshots" / COMMIT
    weights = small_weights(snapshot / "weights.safetensors")
    made = Hub(snapshot, etag=sha256_of(weights))

    def metadata(url: str) -> SimpleNamespace:
        made.asked.append(("metadata", url))
        if "weights.safetensors" not in made.files:
            raise NotThereError("404")
        size = made.size if made.size is not None else weights.stat().st_size
        return SimpleNamespace(commit_hash=COMMIT, etag=made.etag, size=size)

    def download(repo: str, file: str, *, revision: str, local_files_only: bool = False) -> str:
        made.asked.append((repo, file, revision, local_files_only))
        if local_files_only and not weights.exists():
            raise LocalEntryNotFoundError("not cached")
        return str(weights)

    class Api:
        def __init__(self, **_given: object) -> None: ...

        def list_repo_files(self, repo: str, revision: str) -> list[str]:
            return list(made.files)

        def repo_info(self, repo: str) -> SimpleNamespace:
            return SimpleNamespace(private=made.private)

        def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
            made.asked.append(("create", repo, private, exist_ok))

        def create_commit(self, repo: str, operations: list, *, commit_message: str, revision: str) -> SimpleNamespace:
            contents = {}
            for operation in operations:
                given = operation.path_or_fileobj
                contents[operation.path_in_repo] = given if isinstance(given, bytes) else Path(given).read_bytes()
            made.commits.append(contents)
            return SimpleNamespace(oid=COMMIT)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    return made


def test_what_is_a_name_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    for name in (REPO, f"hf://{REPO}", f"{REPO}@v1.0", f"{REPO}@main?sha256={'a' * 64}"):
        assert is_hub_name(name)
    for name in (None, Path(REPO), "base.safetensors", "runs/w.safetensors", "org/model.bin", "/a/b", "a/b/c", "../x"):
        assert not is_hub_name(name)
    (tmp_path / "org" / "breast-lddm").mkdir(parents=True)
    assert not is_hub_name(REPO), "a folder of that name comes first"
    assert is_hub_name(f"hf://{REPO}")


def test_weights_are_fetched_at_a_pinned_commit_and_used(hub: Hub) -> None:
    model = ImageToVideo.from_pretrained(f"{REPO}@v2", "cpu")
    assert model.weights_sha256 == hub.etag
    (kind, url), download = hub.asked
    assert (kind, url.endswith(f"{REPO}/resolve/v2/weights.safetensors")) == ("metadata", True)
    assert download == (REPO, "weights.safetensors", "v2", False)
    found = fetch_weights(REPO, revision="v2", sha256=hub.etag)
    assert (found.repo, found.commit, found.sha256) == (REPO, COMMIT, hub.etag)


@pytest.mark.parametrize("by", ["hub", "name", "argument"])
def test_other_bytes_than_the_digest_says_are_refused(hub: Hub, by: str) -> None:
    other = "0" * 64
    if by == "hub":
        hub.etag = other
    name = f"{REPO}?sha256={other}" if by == "name" else REPO
    with pytest.raises(WeightsError, match=f"has sha256 .*{other}"):
        fetch_weights(name, sha256=other if by == "argument" else None)


def test_size_is_checked_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.size = 10**12
    with pytest.raises(WeightsError, match="1,000,000,000,000 bytes"):
        fetch_weights(REPO)
    assert [asked[0] for asked in hub.asked] == ["metadata"]
    hub.size = None
    monkeypatch.setenv("US_I2V_MAX_BYTES", "2000")
    with pytest.raises(WeightsError, match="at most 2,000 are fetched"):
        fetch_weights(REPO)


def test_offline_takes_the_cache_and_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights(REPO).commit == COMMIT
    assert hub.asked == [(REPO, "weights.safetensors", "main", True)]
    shutil.rmtree(hub.folder)
    with pytest.raises(WeightsError, match=r"no file or folder here.*not in the hub's cache, and the hub is offline"):
        ImageToVideo.from_pretrained(REPO, "cpu")
    with pytest.raises(OutputError, match="offline"):
        ImageToVideo.from_pretrained(small_weights(hub.folder / "w.safetensors"), "cpu").push_to_hub(REPO)


def test_pickles_are_named_and_not_fetched(hub: Hub) -> None:
    hub.files = ("pytorch_model.bin",)
    with pytest.raises(WeightsError, match=r"only 'pytorch_model.bin', a pickle.*us-i2v convert state-dict"):
        fetch_weights(REPO)
    assert [asked[0] for asked in hub.asked] == ["metadata"]


def test_a_repository_without_weights_and_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = ()
    with pytest.raises(WeightsError, match="cannot be fetched: 404"):
        fetch_weights(f"hf://{REPO}")

    def fail(_url: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    result = CliRunner().invoke(app, ["generate", "x.png", "-o", "c.mp4", "--weights", REPO])
    assert "x.png" in one_line_error(result)
    with pytest.raises(WeightsError, match="no route"):
        ImageToVideo.from_pretrained(REPO)


def test_revision_and_digest_of_local_files(tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="not on the hub"):
        ImageToVideo.from_pretrained(path, "cpu", revision="main")
    with pytest.raises(WeightsError, match="has sha256"):
        ImageToVideo.from_pretrained(path, "cpu", sha256="0" * 64)
    assert ImageToVideo.from_pretrained(path, "cpu", sha256=sha256_of(path)).weights_sha256 == sha256_of(path)


def test_push_writes_weights_and_card_in_one_commit(hub: Hub, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors", labels=("benign",))
    model = ImageToVideo.from_pretrained(path, "cpu")
    assert model.push_to_hub(REPO, license="cc-by-4.0") == COMMIT
    assert hub.asked == [("create", REPO, True, True)]
    (files,) = hub.commits
    assert files["weights.safetensors"] == path.read_bytes()
    card = files["README.md"].decode()
    for text in (
        "license: cc-by-4.0",
        sha256_of(path),
        "1 groups (patients)",
        "| classes | benign |",
        "not for diagnosis",
    ):
        assert text in card
    assert card == model_card(load_weights(path).header, sha256_of(path), REPO, "cc-by-4.0")
    with pytest.raises(OutputError, match="no name on the hub"):
        model.push_to_hub("just-a-name")


def test_push_on_the_command_line(hub: Hub, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "run" / "weights.safetensors")
    line = ["push-to-hub", str(path.parent), REPO]
    result = CliRunner().invoke(app, [*line, "--license", "mit", "--public"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{REPO}: published at commit {COMMIT}\n"
    warned = f"{REPO} is public: the header, with the names of 1 groups (patients), can be read by everybody\n"
    assert result.stderr == warned
    assert hub.asked == [("create", REPO, False, True)]
    assert hub.commits[0]["weights.safetensors"] == path.read_bytes()
    assert "license: mit" in hub.commits[0]["README.md"].decode()
    again = CliRunner().invoke(app, line)
    assert (again.exit_code, again.stderr) == (0, warned), "one that was public stays so"
    hub.private = True
    assert CliRunner().invoke(app, line).stderr == ""
    for wrong in ("mit\ntags: [x]", "", "cc by", "x" * 65):
        message = one_line_error(CliRunner().invoke(app, [*line, "--license", wrong]))
        assert "is no licence as the hub writes it" in message
    assert hub.asked[1] == ("create", REPO, True, True)
    assert "do not exist" in one_line_error(CliRunner().invoke(app, ["push-to-hub", "nowhere.safetensors", REPO]))
    assert "no name on the hub" in one_line_error(CliRunner().invoke(app, [*line[:2], "name"]))
    assert len(hub.commits) == 3


def test_evaluate_takes_a_name(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write_clip(tmp_path / "real" / "a.npz", seed=0, frames=16)
    line = ["evaluate", str(tmp_path / "real"), REPO, "--metrics", "motion", "--samples", "0", "--stride", "1"]
    result = CliRunner().invoke(app, [*line, "--size", "48", "--device", "cpu", "-o", str(tmp_path / "r.json")])
    assert result.exit_code == 0, result.stderr
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert (settings["fake"], settings["weights_sha256"]) == (REPO, hub.etag)


def test_trainings_start_from_a_name(hub: Hub) -> None:
    config = AutoencoderTraining.model_validate({"model": SMALL_AUTOENCODER, "init": f"{REPO}@v2"})
    torch.manual_seed(5)
    fresh = Autoencoder(SMALL_AUTOENCODER)
    expected = load_weights(hub.folder / "weights.safetensors").autoencoder().state_dict()
    assert not all(torch.equal(fresh.state_dict()[name], value) for name, value in expected.items())
    found = initial_state(config, fresh)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert hub.asked[-1] == (REPO, "weights.safetensors", "v2", False)


def test_pickles_convert_at_arms_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.pth"
    state = {"module.a": torch.ones(3), "b": torch.zeros(1), "module.n": torch.tensor(4), "note": "text"}
    torch.save({"state_dict": state}, source)
    with pytest.raises(WeightsError, match=r"pickle.*us-i2v convert state-dict model\.pth -o model\.safetensors"):
        load_weights(source)
    line, digest = ["convert", "state-dict", str(source)], sha256_of(source)
    message = one_line_error(CliRunner().invoke(app, [*line, "--sha256", "0" * 64]))
    assert f"has sha256 {digest}; you gave {'0' * 64}" in message
    monkeypatch.setenv("US_I2V_MAX_BYTES", "1024")
    assert "at most 1,024 are allowed" in one_line_error(CliRunner().invoke(app, line))
    monkeypatch.delenv("US_I2V_MAX_BYTES")
    assert not source.with_suffix(".safetensors").exists()
    result = CliRunner().invoke(app, [*line, "--sha256", digest.upper()])
    assert result.exit_code == 0, result.stderr
    assert "'module.' was taken off 1 names\n" in result.stdout
    assert "left out, as they are no tensors of floats: 2 (module.n, note)\n" in result.stdout
    found = load_file(source.with_suffix(".safetensors"))
    assert {name: value.tolist() for name, value in found.items()} == {"a": [1.0, 1.0, 1.0], "b": [0.0]}


def test_pickles_that_run_code_or_hold_a_name_twice(tmp_path: Path) -> None:
    evil, twice = tmp_path / "evil.pt", tmp_path / "twice.pt"
    torch.save(CliRunner(), evil)
    torch.save({"a": torch.ones(3), "module.a": torch.zeros(3)}, twice)
    for source, reason in ((evil, "cannot be read as a state dict"), (twice, "two tensors would be named 'a'")):
        assert reason in one_line_error(CliRunner().invoke(app, ["convert", "state-dict", str(source)]))
        assert not source.with_suffix(".safetensors").exists()
