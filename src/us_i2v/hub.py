"""Weights on the Hugging Face hub: `org/name`, fetched and published; nothing else here uses the network.

    [hf://]ORG/NAME[@REVISION][?sha256=DIGEST]

A repository holds `weights.safetensors` and a model card. Before the download its size is checked (a hub must state
it); after it the SHA-256, against the digest in the name, else against the one that the hub states for large files.
`Fetched` names the commit: pin it to get the same file for ever. With HF_HUB_OFFLINE=1 only what is in the hub's cache
is used. Pickles are never fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from us_i2v import __version__
from us_i2v.data.limits import limits
from us_i2v.errors import OutputError, WeightsError
from us_i2v.metrics.hub import network_errors
from us_i2v.metrics.publishers import sha256_of
from us_i2v.weights import RAISE_BYTES, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from us_i2v.weights import Header

FILE = "weights.safetensors"
CARD = "README.md"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_NAME = re.compile(
    rf"(?P<scheme>hf://)?(?P<repo>{_PART}/{_PART})(@(?P<revision>[\w./-]+?))?(\?sha256=(?P<sha256>[0-9a-f]{{64}}))?"
)
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Fetched:
    """Weights from the hub.

    Attributes:
        path: The file in the hub's cache.
        repo: "org/name".
        commit: Commit of the repository that it is from.
        sha256: Its digest.
    """

    path: Path
    repo: str
    commit: str
    sha256: str


def is_hub_name(name: object) -> bool:
    """Tell whether weights are named as on the hub; what exists here as a file or folder is not."""
    if not isinstance(name, str) or name.startswith((".", "/")):
        return False
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    ending = Path(match["repo"]).suffix.lower()
    return bool(match["scheme"]) or not (ending in (".safetensors", *_PICKLED) or Path(name).exists())


def fetch_weights(name: str, *, revision: str | None = None, sha256: str | None = None) -> Fetched:
    """Download weights into the hub's cache, or find them there.

    Args:
        name: See the module's head.
        revision: Branch, tag or commit, instead of one in the name.
        sha256: Digest that the file must have, instead of one in the name.

    Raises:
        WeightsError: The name is none, there are no such weights, they are too large, not those of the digest, or
            not in the cache while the hub is offline.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise WeightsError(f"'{name}' is no name on the hub.", "Write ORG/NAME@REVISION?sha256=DIGEST.")
    if (revision and match["revision"]) or (sha256 and match["sha256"]):
        raise WeightsError(f"'{name}' states a revision or digest that is given apart as well.", "Give it once.")
    repo, wanted = match["repo"], sha256 or match["sha256"]
    path, commit, stated = _download(repo, revision or match["revision"] or "main", bool(match["scheme"]))
    digest = sha256_of(path)
    expected = wanted or stated
    if expected is not None and digest != expected:
        whose = "you gave" if wanted else "the hub states"
        raise WeightsError(
            f"'{FILE}' of '{repo}' at {commit[:12]} has sha256 {digest}; {whose} {expected}.",
            "Do not use it: fetch it again into an empty cache, or check the digest.",
        )
    return Fetched(path, repo, commit, digest)


def local_weights(name: str) -> Path:
    """Return where weights lie here: a path as it is, a name on the hub after fetching; see `fetch_weights`."""
    return fetch_weights(name).path if is_hub_name(name) else Path(name)


def push_weights(
    path: Path,
    repo: str,
    *,
    private: bool = True,
    license_: str = "other",
    revision: str = "main",
    say: Callable[[str], None] | None = None,
) -> str:
    """Publish a weights file and its model card in one commit.

    Args:
        path: A weights file of us-i2v, or a run folder; it is read and checked first. Its header names the training
            groups.
        repo: "org/name"; made if it does not exist.
        private: Whether a new repository is private.
        license_: Licence of the weights, as the hub writes it: letters, digits, ".", "+" and "-".
        revision: Branch.
        say: Called with one line, before anything is sent, if everybody can read the repository and the header names
            groups.

    Returns:
        The commit.

    Raises:
        WeightsError: The file is no usable weights file.
        OutputError: The hub refuses, is offline, or `repo` or `license_` is no such name.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    if re.fullmatch(f"{_PART}/{_PART}", repo) is None:
        raise OutputError(f"'{repo}' is no name on the hub.", "Write ORG/NAME.")
    if _LICENSE.fullmatch(license_) is None:
        raise OutputError(f"'{license_}' is no licence as the hub writes it.", "Give for example cc-by-4.0, or other.")
    if constants.HF_HUB_OFFLINE:
        raise OutputError(f"Cannot publish '{repo}': the hub is offline (HF_HUB_OFFLINE).", "Unset it.")
    path = path / FILE if path.is_dir() else path
    weights = load_weights(path)
    text = model_card(weights.header, weights.sha256, repo, license_)
    files = [CommitOperationAdd(FILE, str(path)), CommitOperationAdd(CARD, text.encode())]
    api = HfApi(library_name="us-i2v", library_version=__version__)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        groups = len(weights.header.training_groups)
        # One that was there keeps its rights, whatever `private` says.
        if say is not None and groups and not api.repo_info(repo).private:
            say(f"{repo} is public: the header, with the names of {groups} groups (patients), can be read by everybody")
        done = api.create_commit(repo, files, commit_message=f"Weights of us-i2v {__version__}", revision=revision)
    except network_errors() as error:
        raise OutputError(f"Cannot publish '{repo}': {_reason(error)}", "Check name, token and network.") from error
    return str(done.oid)


def model_card(header: Header, sha256: str, repo: str, license_: str) -> str:
    """Return the card of weights: what the header says of them, and how they are loaded."""
    network = header.autoencoder
    process = "none" if header.process is None else f"{header.process.schedule.kind}, {header.process.prediction}"
    rows = {
        "kind": header.kind,
        "written by": f"us-i2v {header.package_version}",
        "sha256": f"`{sha256}`",
        "clips": f"{network.n_frames} frames of {network.size} x {network.size} inside, any size outside",
        "time between frames": f"{header.frame_interval_s * 1000:.0f} ms (trained on "
        f"{header.interval_range_s[0] * 1000:.0f} to {header.interval_range_s[1] * 1000:.0f} ms)",
        "process": process,
        "classes": ", ".join(header.labels) or "none",
        "motion conditions": ", ".join(header.controls) or "none",
        "training": f"{len(header.clip_sha256)} files of {len(header.training_groups)} groups (patients)",
        "notes": " ".join(header.notes.split()) or "none",
    }
    head = ["---", f"license: {license_}", "library_name: us-i2v", "pipeline_tag: image-to-video"]
    lines = [*head, "tags: [ultrasound, synthetic]", "---", "", f"# {repo}", ""]
    lines += ["Turns one ultrasound still into a clip. Motion is plausible, not measured: not for diagnosis.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    lines += ["", "```python", "from us_i2v import ImageToVideo", ""]
    lines += [f'model = ImageToVideo.from_pretrained("{repo}", sha256="{sha256}")', "```", ""]
    lines += ["The file's header names the groups and the hashes of the files that were trained on.", ""]
    return "\n".join(lines)


def _download(repo: str, revision: str, certain: bool) -> tuple[Path, str, str | None]:
    """Return the file, its commit, and the digest that the hub states for it."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    offline = constants.HF_HUB_OFFLINE
    try:
        if offline:
            path = Path(hf_hub_download(repo, FILE, revision=revision, local_files_only=True))
            _check_size(repo, path.stat().st_size)
            # .../snapshots/COMMIT/weights.safetensors is a link to .../blobs/DIGEST
            return path, path.parent.name, _digest(path.resolve().name)
        about = get_hf_file_metadata(hf_hub_url(repo, FILE, revision=revision))
        _check_size(repo, about.size)
        # By the revision's own name: only then does the cache remember which commit it stands for.
        path = Path(hf_hub_download(repo, FILE, revision=revision))
        _check_size(repo, path.stat().st_size)
        commit = path.parent.name
        if commit != about.commit_hash:
            raise WeightsError(
                f"'{repo}' at '{revision}' was commit {about.commit_hash} when its size was read, and {commit} when "
                f"'{FILE}' was fetched.",
                "Fetch it again, or name a commit.",
            )
        return path, commit, _digest(about.etag or "")
    except network_errors() as error:
        here = "" if certain else f"'{repo}' is no file or folder here; "
        what = (
            "is not in the hub's cache, and the hub is offline" if offline else f"cannot be fetched: {_reason(error)}"
        )
        pickles = [] if offline or not isinstance(error, EntryNotFoundError) else _pickles(repo, revision)
        if pickles:
            what = f"is not there, only '{pickles[0]}', a pickle, which can run code when opened"
        raise WeightsError(
            f"{here}'{FILE}' of '{repo}' at '{revision}' {what}.",
            f"Fetch that yourself and convert it: us-i2v convert state-dict {Path(pickles[0]).name} -o {FILE}."
            if pickles
            else "Check name, revision and network; HF_HUB_OFFLINE=1 takes the cache only.",
        ) from error


def _check_size(repo: str, size: int | None) -> None:
    cap = limits().bytes
    if size is None:
        raise WeightsError(
            f"The hub states no size for '{FILE}' of '{repo}'; at most {cap:,} bytes are fetched.",
            "Fetch the file yourself and give its path.",
        )
    if size > cap:
        raise WeightsError(f"'{FILE}' of '{repo}' has {size:,} bytes; at most {cap:,} are fetched.", RAISE_BYTES)


def _pickles(repo: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi

    try:
        files = HfApi().list_repo_files(repo, revision=revision)
    except network_errors():
        return []
    return [file for file in files if Path(file).suffix.lower() in _PICKLED]


def _digest(text: str) -> str | None:
    return text if _SHA256.fullmatch(text) else None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
