"""The privacy filter: what a clip looks like to it, its file, and how alike two sets of clips are.

A clip is cut into windows. A window is seen as `FRAMES` pictures of 96 x 96 px, spread over it, and as the latent that
the video auto-encoder gives it. Windows are compared in three ways (`metrics.copies`), each the largest over pictures
(blank ones, which are alike whatever they belong to, are left out):

| measure | compares | finds |
|---|---|---|
| siamese | embeddings of `models.siamese` | the same anatomy, another frame, mirrored or recoded |
| correlation | pictures without slow gray levels, shifted by up to 8 % and mirrored | the same picture |
| latent | latents less the training set's mean latent | the same motion |

Two files: `privacy.safetensors` (network, held-out similarities, hashes; no pictures) and `reference.safetensors`, the
training set as the filter sees it. The second one holds pictures of patients; the first names its digest.
"""

from us_i2v.privacy.calibration import Held
from us_i2v.privacy.comparing import MEASURES, Comparer, Nearest
from us_i2v.privacy.files import (
    FILTER,
    REFERENCE,
    PrivacyFilter,
    PrivacyHeader,
    load_filter,
    load_reference,
    save_filter,
    save_reference,
)
from us_i2v.privacy.views import FRAMES, Views, Window, look, stored_windows, windows_of

__all__ = [
    "FILTER",
    "FRAMES",
    "MEASURES",
    "REFERENCE",
    "Comparer",
    "Held",
    "Nearest",
    "PrivacyFilter",
    "PrivacyHeader",
    "Views",
    "Window",
    "load_filter",
    "load_reference",
    "look",
    "save_filter",
    "save_reference",
    "stored_windows",
    "windows_of",
]
