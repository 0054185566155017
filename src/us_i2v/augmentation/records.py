"""The record that every clip of a run shares; a clip adds its still and seed, the writer its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from us_i2v.options import choose_sampler
from us_i2v.provenance import Provenance

if TYPE_CHECKING:
    from us_i2v.generators import Precision
    from us_i2v.options import GenerateOptions
    from us_i2v.provenance import Value
    from us_i2v.weights import ProcessConfig


class Info(Protocol):
    """What is asked of the weights; `weights.Header` is one."""

    @property
    def kind(self) -> str:
        """Which stages there are."""

    @property
    def process(self) -> ProcessConfig | None:
        """What is sampled step by step, if anything is."""


def run_record(
    command: Literal["generate", "augment", "transfer"],
    info: Info,
    weights_sha256: str,
    options: GenerateOptions,
    *,
    seed: int | str = 0,
    size: int | None = None,
    drawn: bool = True,
    driver_sha256: str | None = None,
    latent_sha256: str | None = None,
    stamp: str | None = None,
    precision: Precision = "fp32",
) -> Provenance:
    """Return the record of a run.

    Args:
        command: Which command it is.
        info: The weights' header.
        weights_sha256: Hash of the weights file.
        options: How clips are generated.
        seed: Seed of the clip, or of the run.
        size: Length of the longer side, if it was asked for.
        drawn: Whether motion is drawn; else it is given, and nothing is sampled.
        driver_sha256: Hash of the clip that drives.
        latent_sha256: Hash of the latent file that drives.
        stamp: UTC time, if it was asked for.
        precision: What the networks compute in.

    Raises:
        ConfigError: The sampler does not fit the weights.
    """
    plan = choose_sampler(options, info.process) if drawn and info.process is not None else None
    return Provenance(
        command=command,
        still_sha256=None,
        driver_sha256=driver_sha256,
        latent_sha256=latent_sha256,
        weights_kind=info.kind,
        weights_sha256=weights_sha256,
        seed=seed,
        sampler=None if plan is None else str(plan.sampler.model_dump()["kind"]),
        steps=None if plan is None else plan.steps,
        options=recorded_options(options, size, precision),
        stamp=stamp,
    )


def recorded_options(options: GenerateOptions, size: int | None, precision: Precision) -> dict[str, Value]:
    """Return what a record says was asked for; single precision is not mentioned."""
    known = {**options.model_dump(mode="json"), "size": size}
    return known if precision == "fp32" else {**known, "precision": precision}
