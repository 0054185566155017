import pytest

from us_i2v.errors import ConfigError
from us_i2v.reproduction.methods import METHODS, finished, settings
from us_i2v.reproduction.table1 import chosen_rows, needed_methods, parse_weights
from us_i2v.reproduction.table1_report import diversity_unit
from us_i2v.training.autoencoder import AutoencoderTraining
from us_i2v.training.cinn import CINNTraining
from us_i2v.training.denoiser import DenoiserTraining

STAGES = {"autoencoder": AutoencoderTraining, "denoiser": DenoiserTraining, "cinn": CINNTraining}


@pytest.mark.parametrize("preset", [None, "tiny", "base"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_valid_settings(method, preset):
    first = AutoencoderTraining.parse(settings(method, "autoencoder", preset, {}))
    STAGES[METHODS[method].second].parse(settings(method, METHODS[method].second, preset, {}))
    assert first.model.decoder == ("warp" if method == "lddm-base" else "adain")
    assert first.model.latent_mode == ("vector" if method == "cinn" else "map")
    assert (first.loss.nll > 0) == METHODS[method].speckle


def test_changes_reach_the_stage_that_they_name():
    changes = {"cinn": {"autoencoder": {"optimiser": {"steps": 7}}}}
    assert settings("cinn", "autoencoder", "tiny", changes)["optimiser"]["steps"] == 7
    assert settings("lddm-base", "autoencoder", "tiny", changes)["optimiser"]["steps"] != 7


def test_rows_are_chosen_in_the_tables_order():
    assert chosen_rows(["cinn", "noise"]) == ["noise", "cinn"]
    assert chosen_rows(None)[-2:] == ["lddm-base", "lddm-base-quiet"]
    with pytest.raises(ConfigError, match="no row 'foo'"):
        chosen_rows(["foo"])


def test_a_random_latent_needs_the_base_model():
    assert needed_methods(["random-latent", "repeat"]) == ["lddm-base"]
    assert needed_methods(["lddm-base-quiet"]) == ["lddm-base"]
    assert needed_methods(["repeat"]) == []


def test_weights_are_given_by_method():
    assert str(parse_weights(["cinn=a/b"])["cinn"]) == "a/b"
    for bad in ("cinn", "cinn=", "gan=x"):
        with pytest.raises(ConfigError, match="METHOD=PATH"):
            parse_weights([bad])


def test_a_run_is_finished_when_its_last_step_is_logged(tmp_path):
    assert not finished(tmp_path, 5)
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n')
    assert not finished(tmp_path, 5)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 5}\n')
    assert finished(tmp_path, 5)


def test_div_is_scaled_as_cinn_does_it_and_says_so():
    assert diversity_unit("fvd") == (1.0, "")
    assert diversity_unit("dtfvd") == diversity_unit("fvd-x3d") == (1000.0, " x 1000")
