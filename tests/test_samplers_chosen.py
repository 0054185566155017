"""Which sampler is chosen for which process, and that one which does not fit is refused."""

from __future__ import annotations

import pytest
import torch

from us_i2v.diffusion.samplers import DDIM, DDPM, SAMPLERS, DPMSolver, Euler, Heun
from us_i2v.diffusion.schedule import Linear, Rectified
from us_i2v.diffusion.shortcut import Shortcut
from us_i2v.errors import ConfigError
from us_i2v.options import GenerateOptions, choose_sampler
from us_i2v.weights import ProcessConfig

CHAIN = ProcessConfig()
FLOW = ProcessConfig(schedule=Rectified(), prediction="velocity")
SHORT = FLOW.model_copy(update={"shortcut": Shortcut(steps=16)})


def test_ddpm_weights_get_dpm_solver_even_in_log_snr_and_the_others_as_ever():
    assert choose_sampler(GenerateOptions(), CHAIN) == (DPMSolver(), 12, "log_snr", None)
    assert choose_sampler(GenerateOptions(sampler="ddim"), CHAIN) == (DDIM(), 25, "quadratic", None)
    assert choose_sampler(GenerateOptions(sampler="ddpm", steps=7), CHAIN) == (DDPM(), 7, "uniform", None)


def test_flow_matching_gets_dpm_solver_and_shortcuts_their_own_steps():
    assert choose_sampler(GenerateOptions(), FLOW) == (DPMSolver(), 8, "shifted_5", None)
    assert choose_sampler(GenerateOptions(sampler="heun"), FLOW) == (Heun(), 6, "shifted_3", None)
    assert choose_sampler(GenerateOptions(sampler="euler"), FLOW) == (Euler(), 25, "uniform", None)
    assert choose_sampler(GenerateOptions(), SHORT) == (Euler(), 4, "uniform", 0.25)
    assert choose_sampler(GenerateOptions(steps=1), SHORT) == (Euler(), 1, "uniform", 1.0)
    assert choose_sampler(GenerateOptions(steps=16), SHORT) == (Euler(), 16, "uniform", 0.0)
    assert choose_sampler(GenerateOptions(sampler="heun", steps=5), SHORT) == (Heun(), 5, "shifted_3", None)
    few = FLOW.model_copy(update={"shortcut": Shortcut(steps=2)})
    assert choose_sampler(GenerateOptions(), few) == (Euler(), 2, "uniform", 0.0)


@pytest.mark.parametrize("process", [CHAIN, ProcessConfig(schedule=Linear(), prediction="eps"), FLOW, SHORT])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_fits_or_is_refused_in_one_line(kind, process):
    fits = {"dpm-solver", "heun"} | ({"euler"} if process.flow_matching else {"ddim", "ddpm"})
    options = GenerateOptions(sampler=kind)
    if kind in fits:
        assert choose_sampler(options, process).sampler == SAMPLERS[kind]()
        return
    with pytest.raises(ConfigError, match=f"'{kind}' does not fit.*--sampler {', '.join(sorted(fits))}") as caught:
        choose_sampler(options, process)
    assert "\n" not in str(caught.value)


def test_steps_that_shortcuts_do_not_know_are_refused():
    with pytest.raises(ConfigError, match=r"12 steps.*1, 2, 4, 8, 16.*--sampler heun"):
        choose_sampler(GenerateOptions(steps=12), SHORT)


def test_the_size_is_stated_for_every_sample():
    x = torch.zeros(3, 2, dtype=torch.float64)
    assert choose_sampler(GenerateOptions(), FLOW).stated(x) is None
    size = choose_sampler(GenerateOptions(steps=2), SHORT).stated(x)
    assert size is not None
    assert size.tolist() == [0.5, 0.5, 0.5]
