"""What Table 2 is made with, and the settings of each training that follow from it.

Axes say which cells there are and may grow from run to run; everything else is pinned in RUN/plan.json, because what
lies in a finished cell depends on it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from us_i2v.config import Config, merge
from us_i2v.errors import ConfigError
from us_i2v.models.classifiers import ClassifierName
from us_i2v.presets import PRESETS, Stage, preset
from us_i2v.reproduction.methods import METHODS, MethodName, settings
from us_i2v.training.autoencoder import AutoencoderTraining
from us_i2v.training.cinn import CINNTraining
from us_i2v.training.classifier import ClassifierTraining
from us_i2v.training.denoiser import DenoiserTraining

Diet = Literal["real", "synthetic", "both"]
ControlName = Literal["static", "affine", "elastic", "class-blind", "reconstructed", "bundled"]

DIETS: tuple[Diet, ...] = get_args(Diet)
CONTROLS: dict[ControlName, str] = {
    "static": "frame 0 repeated",
    "affine": "random affine motion",
    "elastic": "random elastic motion",
    "class-blind": "LDDM without class",
    "reconstructed": "training clips, reconstructed",
    "bundled": "bundled weights",
}
"""Titles of what stands in for a trained generator, on the same stills unless it says otherwise."""

AXES = ("splits", "generators", "controls", "models", "seeds", "diets", "mixes")
"""Settings that choose cells and are not pinned."""

MAKERS: frozenset[str] = frozenset({"static", "affine", "elastic"})
"""Controls without a network."""

_RATIO = re.compile(r"([1-9]\d?):([1-9]\d?)")
MIX = re.compile(r"all|balance|x\d+(\.\d+)?|best(0?\.\d+|1(\.0)?)")
UNJUDGED: frozenset[str] = frozenset({"static"})
"""Sources whose clips have no quality: those that do not move."""


def training_share(split: str) -> float:
    """Return the share of training videos of "7:3"; raises `ConfigError`."""
    match = _RATIO.fullmatch(split)
    if match is None:
        raise ConfigError(f"'{split}' is no ratio of training to test videos.", "Write for example 7:3.")
    train, test = int(match[1]), int(match[2])
    return train / (train + test)


def best_share(mix: str) -> float | None:
    """Return 0.5 of "best0.5"; None of mixes that do not choose by quality."""
    return float(mix.removeprefix("best")) if mix.startswith("best") else None


def _splits(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if _RATIO.fullmatch(value) is None:
            raise ValueError(f"'{value}' is no ratio of training to test videos, such as 7:3")
    return values


def _mixes(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if MIX.fullmatch(value) is None or best_share(value) == 0 or (value[0] == "x" and float(value[1:]) == 0):
            raise ValueError(f"'{value}' is none of all, balance, x2 (any number above 0), best0.5 (any share up to 1)")
    return values


Splits = Annotated[tuple[str, ...], AfterValidator(_splits)]
Mixes = Annotated[tuple[str, ...], AfterValidator(_mixes)]
Seed = Annotated[int, Field(ge=0)]


class Table2Settings(Config):
    """What Table 2 is made with."""

    splits: Splits = Field(("7:3", "5:5", "3:7"), min_length=1, description="Training to test videos.")
    generators: tuple[MethodName, ...] = Field(("cinn", "lddm-base"), description="Trained on each split.")
    controls: tuple[ControlName, ...] = Field((), description="What else makes synthetic clips.")
    models: tuple[ClassifierName, ...] = Field(get_args(ClassifierName), min_length=1, description="Classifiers.")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="Seeds of the classifiers.")
    diets: tuple[Diet, ...] = Field(DIETS, min_length=1, description="What classifiers are trained on.")
    mixes: Mixes = Field(
        ("all",), min_length=1, description="Synthetic clips beside real ones: all, balance, x2, best0.5 (best half)."
    )

    folds: int = Field(1, ge=1, le=50, description="1: one split a ratio. More: every patient is tested once.")
    stills_from_videos: bool = Field(False, description="Half of the groups give stills, the other half videos.")
    classes: tuple[str, ...] = Field((), description="Classes in order, the last is positive. Empty: all, sorted.")
    seed: int = Field(0, ge=0, description="Seed of the splits, the generators and the synthetic clips.")
    preset: str | None = Field(None, description="Of all trainings; empty: each generator's own, classifiers paper.")
    changes: dict[str, Any] = Field({}, description="Method -> stage -> settings; classifier, or one's name -> same.")
    class_condition: bool = Field(True, description="Give LDDM the class as a condition.")
    clips_per_still: int = Field(1, ge=1, le=100, description="Synthetic clips of each still.")
    frames: int = Field(16, ge=16, le=64, description="Frames of synthetic clips and of classifiers' windows.")
    width: float | None = Field(None, gt=0, le=1, description="Factor on the classifiers' channels; empty: preset's.")
    size: int | None = Field(None, ge=64, le=512, description="Side of classifiers' frames and of synthetic clips.")
    steps: int | None = Field(None, ge=1, description="Steps of a classifier; empty: the preset's.")
    generator_steps: int | None = Field(None, ge=1, description="Steps of every generator's stage; empty: preset's.")
    windows: int = Field(5, ge=1, le=64, description="Windows of a test video over which is averaged.")
    keep_weights: bool = Field(False, description="Keep the classifiers' weights.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in AXES:
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds something twice")
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"preset is one of {', '.join(PRESETS)}")
        known = [*METHODS, "classifier", *get_args(ClassifierName)]
        for name in self.changes:
            if name not in known:
                raise ValueError(f"changes are of {', '.join(known)}, not of '{name}'")
        blind, again = "class-blind" in self.controls, "reconstructed" in self.controls
        if (blind or again) and self.lddm is None:
            raise ValueError("class-blind and reconstructed clips need an LDDM among the generators")
        if blind and not self.class_condition:
            raise ValueError("class-blind is a control only if LDDM has the class as a condition")
        if self.diets != ("real",) and not self.sources:
            raise ValueError("synthetic clips need a generator or a control")
        return self

    @property
    def lddm(self) -> MethodName | None:
        """The LDDM that class-blind and reconstructed clips are made with."""
        return next((name for name in self.generators if METHODS[name].second == "denoiser"), None)

    @property
    def sources(self) -> tuple[str, ...]:
        """What makes synthetic clips: generators, then controls."""
        return (*self.generators, *self.controls)

    def pinned(self) -> dict[str, Any]:
        """Return everything that finished cells depend on, as JSON values."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in AXES}


def source_title(source: str) -> str:
    """Return a generator's or control's name in the table."""
    return CONTROLS[source] if source in CONTROLS else METHODS[source].title  # type: ignore[index]


def generator_changes(chosen: Table2Settings) -> dict[str, Any]:
    """Return {method: {stage: settings}} for `methods.train_method`."""
    found: dict[str, Any] = {}
    for name, method in METHODS.items():
        own: dict[str, Any] = {"optimiser": {"seed": chosen.seed}}
        if chosen.generator_steps is not None:
            own["optimiser"]["steps"] = chosen.generator_steps
        stages: dict[str, Any] = {"autoencoder": own, method.second: own}
        if method.second == "denoiser":
            stages["denoiser"] = merge(own, {"labels": chosen.class_condition})
        found[name] = merge(stages, dict(chosen.changes.get(name, {})))
    return found


def classifier_training(chosen: Table2Settings, model: str, diet: Diet, mix: str, seed: int) -> ClassifierTraining:
    """Return the settings of one classifier; raises `ConfigError`.

    Windows are drawn by time, not by a stride: a synthetic clip has no frames between those that it was made of.
    Repeated frames are kept, for clips of one repeated frame are among the controls.
    """
    values = merge(preset(chosen.preset or "paper", "classifier"), {"clips": {"stride": None, "drop_repeats": False}})
    values = merge(values, dict(chosen.changes.get("classifier", {})))
    values = merge(values, dict(chosen.changes.get(model, {})))
    size = {key: value for key, value in (("width", chosen.width), ("size", chosen.size)) if value is not None}
    steps = {} if chosen.steps is None else {"steps": chosen.steps}
    values = merge(
        values,
        {
            "model": {"name": model, "n_frames": chosen.frames, **size},
            "optimiser": {**steps, "seed": seed},
            "classes": list(chosen.classes),
            "mix": {"diet": diet},
        },
    )
    if diet == "both":
        values = merge(values, {"mix": mix_values(mix)})
    else:
        values["mix"].pop("share", None)
    found = ClassifierTraining.parse(values, f"changes of {model}")
    if found.clips.stride is not None or found.clips.drop_repeats:
        raise ConfigError(
            "changes of the classifiers set clips.stride or clips.drop_repeats; synthetic clips would be left out.",
            "Leave clips.stride and clips.drop_repeats alone, set clips.dt_ms.",
        )
    return found


def mix_values(mix: str) -> dict[str, Any]:
    """Return the settings of a mix, see `data.mixing.MixConfig`; of "best0.5" the clips themselves are fewer."""
    if mix == "balance":
        return {"balance": True}
    return {"ratio": float(mix[1:])} if mix.startswith("x") else {}


def stage_training(
    chosen: Table2Settings, method: MethodName, stage: Stage, changes: dict[str, Any]
) -> AutoencoderTraining | DenoiserTraining | CINNTraining:
    """Return the settings of one stage of a generator; raises `ConfigError`."""
    values = settings(method, stage, chosen.preset, changes)
    source = f"changes of {method}.{stage}"
    if stage == "autoencoder":
        return AutoencoderTraining.parse(values, source)
    return DenoiserTraining.parse(values, source) if stage == "denoiser" else CINNTraining.parse(values, source)


def check_settings(chosen: Table2Settings) -> None:
    """Raise `ConfigError` if a training's settings are invalid, before anything is made."""
    changes = generator_changes(chosen)
    for method in chosen.generators:
        stages: tuple[Stage, Stage] = ("autoencoder", METHODS[method].second)
        unknown = set(changes[method]) - set(stages)
        if unknown:
            raise ConfigError(f"changes.{method}.{min(unknown)} is no stage.", f"Use {' or '.join(stages)}.")
        first, _ = (stage_training(chosen, method, stage, changes) for stage in stages)
        if method == chosen.lddm and "reconstructed" in chosen.controls:
            length = first.model.n_frames  # type: ignore[union-attr]
            if length < chosen.frames:
                raise ConfigError(
                    f"Reconstructed clips have {length} frames; {chosen.frames} are asked for.",
                    f"Use --frames {length}, or leave this control out.",
                )
    for model in chosen.models:
        for diet in chosen.diets:
            for mix in chosen.mixes:
                classifier_training(chosen, model, diet, mix, chosen.seeds[0])
