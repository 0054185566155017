"""Files on the Hugging Face hub, for users who write such a location themselves; nothing else uses the network.

    hf://ORG/REPO[@REVISION]/PATH/FILE[?sha256=DIGEST]

A digest must be known, from the table or from the location, and is checked after the download.
"""

from __future__ import annotations

import re
from pathlib import Path

from us_i2v.errors import WeightsError
from us_i2v.metrics.publishers import sha256_of

_SCHEME = "hf://"
_LOCATION = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?/(?P<file>[^?@]+?)(\?sha256=(?P<sha256>[0-9a-f]{64}))?"
)


def is_hub_location(location: object) -> bool:
    """Tell whether a location lies on the hub."""
    return isinstance(location, str) and location.startswith(_SCHEME)


def fetch(location: str, known_sha256: str | None) -> Path:
    """Download a file into the hub's own cache and return its path.

    Args:
        location: See the module's head.
        known_sha256: The table's digest of this file, if there is one.

    Raises:
        WeightsError: If the location is malformed, no digest is known, the download fails or the digest differs.
    """
    match = _LOCATION.fullmatch(location)
    if match is None:
        raise WeightsError(
            f"'{location}' is no hub location.", "Write hf://ORG/REPO@REVISION/FILE?sha256=DIGEST (64 lower digits)."
        )
    expected = match["sha256"] or known_sha256
    if expected is None:
        raise WeightsError(f"No sha256 is known for '{location}'.", "Append ?sha256=DIGEST to it.")
    path = _download(match["repo"], match["file"], match["revision"])
    digest = sha256_of(path)
    if digest != expected:
        raise WeightsError(
            f"'{location}' has sha256 {digest[:12]}..., {expected[:12]}... is needed.", "Check repository and revision."
        )
    return path


def _download(repo: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision))
    except network_errors() as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"Cannot fetch '{file}' of '{repo}' from the hub: {reason}", "Check the location and the network."
        ) from error


def network_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises for answers, names and networks.

    Failures to connect are of the HTTP library's own classes, and which library that is depends on the client's
    version: its base is the one of the client's errors of answers.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    http = tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (*http, OSError, EntryNotFoundError, HFValidationError)
