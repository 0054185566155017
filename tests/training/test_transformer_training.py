"""A transformer in the second stage: it is trained, resumed and refined like the U-Net."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import denoiser_config
from tests.training.test_flow_training import FLOW, SHORT, home, run
from tests.training.test_training_runs import StopAfter, equal, tensors
from us_i2v.errors import ConfigError
from us_i2v.models.transformer import SpaceTimeTransformer
from us_i2v.training.denoiser import DenoiserTraining
from us_i2v.weights import load_weights

__all__ = ["home"]


def settings(**changes: object) -> DenoiserTraining:
    plain = denoiser_config(**changes)
    model = plain.model.model_copy(update={"kind": "transformer", "depth": 1})
    return plain.model_copy(update={"model": model})


def test_a_transformer_is_trained_resumed_and_refined_by_shortcuts(home: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(home, "parts-t", settings(process=FLOW), StopAfter(1))
    parts = run(home, "parts-t", settings(process=FLOW), resume=True)
    whole = run(home, "whole-t", settings(process=FLOW))
    assert equal(tensors(parts), tensors(whole))
    assert isinstance(load_weights(whole).denoiser(), SpaceTimeTransformer)
    short = load_weights(run(home, "short-t", settings(process=SHORT, init=str(whole))))
    assert isinstance(short.denoiser(), SpaceTimeTransformer)
    assert short.header.process == SHORT
    with pytest.raises(ConfigError, match="another shape"):
        run(home, "other-t", denoiser_config(process=FLOW, init=str(whole)))
