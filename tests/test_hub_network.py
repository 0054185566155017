"""Weights by name over real sockets: a small server that answers as the hub does, its cache, and no server at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from tests.cli.conftest import one_line_error
from tests.factories import small_weights, textured_still
from tests.fakes import write_png
from us_i2v import hub
from us_i2v.cli.app import app
from us_i2v.errors import OutputError, WeightsError
from us_i2v.hub import FILE, fetch_weights, push_weights
from us_i2v.metrics.hub import fetch
from us_i2v.metrics.publishers import sha256_of

REPO = "org/breast-lddm"
COMMITS = ("a" * 40, "b" * 40)


@dataclass
class Server:
    """What the hub holds and was asked.

    Attributes:
        weights: The file.
        commits: Commit that `main` stands for, answer by answer; the last one stays.
        state_size: Whether answers state the file's size.
        asked: Methods of the requests.
    """

    weights: bytes
    commits: list[str] = field(default_factory=lambda: [COMMITS[0]])
    state_size: bool = True
    asked: list[str] = field(default_factory=list)


def take_hub_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client ask this machine; both names are read from the environment when it is imported."""
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def server(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(small_weights(tmp_path / "w.safetensors").read_bytes())
    digest = sha256_of(tmp_path / "w.safetensors")

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            state.asked.append(self.command)
            if f"/{REPO}/resolve/" not in self.path:
                self.send_error(404)
                return
            commit = state.commits.pop(0) if len(state.commits) > 1 else state.commits[0]
            self.send_response(200)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", commit)
            if state.state_size:
                self.send_header("Content-Length", str(len(state.weights)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(state.weights)

        do_HEAD = do_GET = answer  # noqa: N815

        def log_message(self, *_given: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    take_hub_at(listening.server_port, monkeypatch)
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    take_hub_at(port, monkeypatch)


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMITS[0]])
def test_what_was_fetched_is_found_offline(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    fetched = fetch_weights(f"{REPO}@{revision}")
    assert fetched.commit == COMMITS[0]
    assert fetched.path.is_relative_to(cache)
    assert fetched.path.read_bytes() == server.weights
    assert "GET" in server.asked
    server.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_weights(f"{REPO}@{revision}") == fetched
    assert server.asked == []


def test_a_branch_that_moves_during_the_fetch_is_refused(server: Server) -> None:
    server.commits = list(COMMITS)
    with pytest.raises(WeightsError, match=f"was commit {COMMITS[0]} .*and {COMMITS[1]} when"):
        fetch_weights(REPO)
    assert fetch_weights(REPO).commit == COMMITS[1]


def test_nothing_is_fetched_of_an_unstated_size(server: Server, cache: Path) -> None:
    server.state_size = False
    with pytest.raises(WeightsError, match=f"states no size for '{FILE}'"):
        fetch_weights(REPO)
    assert "GET" not in server.asked
    assert not list(cache.rglob(FILE))


@pytest.mark.usefixtures("no_network")
def test_without_a_network_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the client's pauses before it tries again
    weights = small_weights(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"no file or folder here; .*cannot be fetched: .*refused.+HF_HUB_OFFLINE=1"):
        fetch_weights(REPO)
    assert hub._pickles(REPO, "main") == []
    with pytest.raises(WeightsError, match="Cannot fetch 'lpips"):
        fetch("hf://org/metrics/lpips.safetensors", "0" * 64)
    with pytest.raises(OutputError, match=f"Cannot publish '{REPO}': .*refused.+ network"):
        push_weights(weights, REPO)
    line = one_line_error(CliRunner().invoke(app, ["push-to-hub", str(weights), REPO]))
    assert f"Cannot publish '{REPO}'" in line
    still, clip = write_png(tmp_path / "s.png", textured_still(40, 51)), tmp_path / "c.mp4"
    line = one_line_error(
        CliRunner().invoke(app, ["generate", str(still), "-o", str(clip), "--weights", "runs/ldm", "--device", "cpu"])
    )
    assert "'runs/ldm' is no file or folder here" in line
    assert not clip.exists()
