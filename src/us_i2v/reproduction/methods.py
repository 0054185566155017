"""The methods of Table 1: what is trained for each, and how its weights come about.

    lddm-base    warp decoder and diffusion, preset `base`
    lddm-paper   AdaIN decoder and diffusion, preset `paper`: LDDM as printed (Chen et al. 2024)
    cinn         AdaIN decoder of a latent vector and a conditional flow (Dorkenwald et al. 2021), the paper's baseline

A method's run folders lie in OUT/methods/<method>/{autoencoder,second}; a finished stage is not trained again, an
interrupted one goes on. Weights that already exist can be given instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from us_i2v.config import merge
from us_i2v.errors import OutputError
from us_i2v.presets import preset
from us_i2v.training.autoencoder import AutoencoderTraining, train_autoencoder
from us_i2v.training.cinn import CINNTraining, train_cinn
from us_i2v.training.denoiser import DenoiserTraining, train_denoiser

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from us_i2v.presets import Stage
    from us_i2v.training.report import Reporter

MethodName = Literal["lddm-base", "lddm-paper", "cinn"]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        title: Its name in the table.
        preset: Preset of both stages, unless all methods are given another.
        second: What models the latents.
        autoencoder: Settings of stage 1 beyond the preset.
        speckle: Whether its decoder knows the scale of drawn speckle.
    """

    title: str
    preset: str
    second: Literal["denoiser", "cinn"]
    autoencoder: Mapping[str, Any]
    speckle: bool


_PAINTED: dict[str, Any] = {"model": {"decoder": "adain"}, "loss": {"nll": 0.0}}
_VECTOR: dict[str, Any] = {"model": {"latent_mode": "vector", "latent_channels": 64}}

METHODS: dict[MethodName, Method] = {
    "cinn": Method("cINN", "paper", "cinn", merge(_PAINTED, _VECTOR), speckle=False),
    "lddm-paper": Method("LDDM paper (AdaIN)", "paper", "denoiser", _PAINTED, speckle=False),
    "lddm-base": Method("LDDM base (warp)", "base", "denoiser", {}, speckle=True),
}


def settings(method: MethodName, stage: Stage, name: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage: preset, then the method's own, then `changes`, not yet validated.

    Args:
        method: Key of `METHODS`.
        stage: "autoencoder", "denoiser" or "cinn".
        name: Preset for every method; None takes the method's.
        changes: {method: {stage: settings}}.

    Raises:
        ConfigError: The preset is unknown.
    """
    known = METHODS[method]
    values = preset(name or known.preset, stage)
    if stage == "autoencoder":
        values = merge(values, dict(known.autoencoder))
    return merge(values, dict(changes.get(method, {}).get(stage, {})))


def train_method(
    method: MethodName,
    data: Sequence[Path],
    out: Path,
    preset_name: str | None,
    changes: Mapping[str, Any],
    *,
    reporter: Reporter,
    device: str,
) -> Path:
    """Train what is missing of a method's two stages; return the run folder with both stages' weights.

    Args:
        method: Key of `METHODS`.
        data: Data folders whose samples state their split; test clips are not touched.
        out: Folder of this method's runs.
        preset_name: See `settings`.
        changes: See `settings`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Raises:
        ConfigError: Settings are invalid, or another run lies in the folder.
        DataError: No training clips.
        TrainingError: A loss is not finite.
    """
    first, second = out / "autoencoder", out / "second"
    kind: Stage = METHODS[method].second
    stage1 = AutoencoderTraining.parse(settings(method, "autoencoder", preset_name, changes), f"{method} stage 1")
    values = settings(method, kind, preset_name, changes)
    if not finished(first, stage1.optimiser.steps):
        _share_cache(first, out.parent / "cache")
        train_autoencoder(data, first, stage1, resume=_begun(first), reporter=reporter, device=device)
    if kind == "denoiser":
        denoiser = DenoiserTraining.parse(values, f"{method} stage 2")
        if not finished(second, denoiser.optimiser.steps):
            train_denoiser(data, first, second, denoiser, resume=_begun(second), reporter=reporter, device=device)
    else:
        flow = CINNTraining.parse(values, f"{method} stage 2")
        if not finished(second, flow.optimiser.steps):
            train_cinn(data, first, second, flow, resume=_begun(second), reporter=reporter, device=device)
    return second


def finished(run: Path, steps: int) -> bool:
    """Tell whether a run folder holds weights of its last step."""
    log = run / "metrics.jsonl"
    if not (run / "weights.safetensors").is_file() or not log.is_file():
        return False
    last = log.read_text(encoding="utf-8").splitlines()[-1:]
    return bool(last) and json.loads(last[0])["step"] == steps


def _share_cache(run: Path, cache: Path) -> None:
    """Let a run keep decoded clips beside the methods' folders, so that they are decoded once for all of them."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        run.mkdir(parents=True, exist_ok=True)
        if not (run / "cache").exists():
            (run / "cache").symlink_to(cache.resolve(), target_is_directory=True)
    except OSError as error:
        raise OutputError(
            f"Cannot link '{cache}' into '{run}': {error.strerror}.", "Choose a folder on a disk with links."
        ) from error


def _begun(run: Path) -> bool:
    return (run / "checkpoint.safetensors").exists()
