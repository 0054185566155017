"""`us-i2v convert` on files with the publishers' names for tensors and random values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.metrics import fake_publishers as fake
from us_i2v.cli import convert as command
from us_i2v.errors import WeightsError
from us_i2v.metrics import conversion, publishers
from us_i2v.metrics.conversion import convert
from us_i2v.metrics.conversion.reading import Limits, read_state_dict
from us_i2v.metrics.conversion.recipes import RECIPES, folded
from us_i2v.metrics.extractors import load_extractor
from us_i2v.metrics.inception import InceptionV3
from us_i2v.metrics.lpips import LPIPS
from us_i2v.metrics.pretrained import PRETRAINED, load_pretrained
from us_i2v.metrics.x3d import X3DXS

Run = Callable[..., Result]


def read_here(path: Path, sha256: str, prefixes: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Stand in for the reading process, which takes seconds to start and has tests of its own."""
    state = torch.load(path, weights_only=True)
    for key in ("state_dict", "model_state"):
        state = state.get(key, state)
    return {k: v for k, v in state.items() if v.is_floating_point() and k.startswith(prefixes or "")}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read fake files without another process."""
    monkeypatch.setattr(conversion, "read_state_dict", read_here)


def x3d_with_batch_norms(state: fake.State, x: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorchVideo's forward pass, written out: (pool432, logits)."""

    def norm(y: Tensor, name: str) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(y, *parts, training=False, eps=1e-5)

    def conv(y: Tensor, name: str, **options: object) -> Tensor:
        return functional.conv3d(y, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)  # type: ignore[arg-type]

    x = conv(x, "blocks.0.conv.conv_t", stride=(1, 2, 2), padding=(0, 1, 1))
    x = functional.relu(norm(conv(x, "blocks.0.conv.conv_xy", padding=(2, 0, 0), groups=24), "blocks.0.norm"))
    for stage, count in ((1, 3), (2, 5), (3, 11), (4, 7)):
        for index in range(count):
            block = f"blocks.{stage}.res_blocks.{index}"
            stride = (1, 2, 2) if index == 0 else (1, 1, 1)
            y = functional.relu(norm(conv(x, f"{block}.branch2.conv_a"), f"{block}.branch2.norm_a"))
            y = conv(y, f"{block}.branch2.conv_b", stride=stride, padding=1, groups=y.shape[1])
            y = norm(y, f"{block}.branch2.norm_b.0")
            squeeze = f"{block}.branch2.norm_b.1.block"
            if f"{squeeze}.0.weight" in state:
                z = conv(functional.relu(conv(y.mean((2, 3, 4), keepdim=True), f"{squeeze}.0")), f"{squeeze}.2")
                y = y * torch.sigmoid(z)
            y = norm(conv(y * torch.sigmoid(y), f"{block}.branch2.conv_c"), f"{block}.branch2.norm_c")
            if f"{block}.branch1_conv.weight" in state:
                x = conv(x, f"{block}.branch1_conv", stride=stride)
            if f"{block}.branch1_norm.weight" in state:
                x = norm(x, f"{block}.branch1_norm")
            x = functional.relu(x + y)
    x = functional.relu(norm(conv(x, "blocks.5.pool.pre_conv"), "blocks.5.pool.pre_norm"))
    pooled = x.mean((2, 3, 4), keepdim=True)
    wide = functional.relu(conv(pooled, "blocks.5.pool.post_conv")).flatten(1)
    return pooled.flatten(1), wide @ state["blocks.5.proj.weight"].T + state["blocks.5.proj.bias"]


def test_folding() -> None:
    make = fake.Maker(8)
    make.convolution("c", 5, 3, 3, 3, bias=False)
    make.norm("n", 5)
    weight, bias = folded(make.state, "c", "n", 1e-3)
    x = make.tensor(2, 3, 6, 6)
    parts = [make.state[f"n.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    expected = functional.batch_norm(functional.conv2d(x, make.state["c.weight"]), *parts, training=False, eps=1e-3)
    torch.testing.assert_close(functional.conv2d(x, weight, bias), expected, rtol=0, atol=1e-5)


def test_x3d_through_the_program(us_i2v: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: a pickle in its own process, folded, written, the same bytes again, loaded, compared."""
    state = fake.x3d_xs()
    content = {"model_state": state, "epoch": 3}
    source = fake.publish(monkeypatch, "pytorchvideo-x3d-xs", tmp_path / "X3D_XS.pyth", content)
    out = tmp_path / "new" / "x3d.safetensors"
    result = us_i2v("convert", "x3d-xs", source, "-o", out)
    assert result.exit_code == 0, result.stderr
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    lines = result.stdout.splitlines()
    assert lines[0] == f"from X3D_XS.pyth sha256 {hashlib.sha256(source.read_bytes()).hexdigest()} (published)"
    assert lines[1] == "tensors differ from those of the x3d-xs file known to us-i2v"
    assert lines[2] == f"{out} sha256 {digest}"
    before = out.read_bytes()
    monkeypatch.setattr(conversion, "read_state_dict", read_here)
    assert us_i2v("convert", "x3d-xs", source, "-o", out).exit_code == 0
    assert out.read_bytes() == before
    network = X3DXS.load(out)
    x = torch.randn(2, 3, 4, 32, 40, generator=torch.Generator().manual_seed(9))
    pooled, logits = x3d_with_batch_norms(state, x)
    torch.testing.assert_close(network.pool432(x), pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(network(x), logits, rtol=0, atol=1e-5)
    assert float(logits.std()) > 1e-3
    assert load_extractor("fvd-x3d", out).label == "FVD-X3D[X3D_XS.pyth]"


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("backbone", "key", "trunk"),
    [
        ("alex", "torchvision-alexnet", fake.alexnet),
        ("squeeze", "torchvision-squeezenet", fake.squeezenet),
        ("vgg", "torchvision-vgg16", fake.vgg16),
    ],
)
def test_lpips_in_any_order_of_files(
    us_i2v: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    key: str,
    trunk: Callable[[], fake.State],
) -> None:
    features = trunk()
    heads = fake.lpips_heads(backbone)
    one = fake.publish(monkeypatch, key, tmp_path / "trunk.pth", features)
    two = fake.publish(monkeypatch, f"lpips-{backbone}-heads", tmp_path / "heads.pth", heads)
    for files in ((one, two), (two, one)):
        result = us_i2v("convert", f"lpips-{backbone}", *files, "-o", tmp_path)
        assert result.exit_code == 0, result.stderr
    out = tmp_path / PRETRAINED[f"lpips-{backbone}"].file
    expected = {k: v for k, v in (features | heads).items() if not k.startswith("classifier")}
    found = load_file(out)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    a, b = torch.rand(2, 1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    assert float(LPIPS.load(backbone, tmp_path)(a, b)) > 0  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_process")
def test_unpublished_digest_needs_the_users_word(us_i2v: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VideoGPT's file, into the cache folder, from where the extractor finds it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("US_I2V_METRIC_WEIGHTS", raising=False)
    source = fake.publish(monkeypatch, "videogpt-i3d", tmp_path / "i3d.pt", fake.i3d(400), known=False)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    for words in ([], ["--sha256", "0" * 64]):
        line = one_line_error(us_i2v("convert", "i3d-kinetics400", source, *words))
        assert "No sha256 of i3d_pretrained_400.pt is published" in line
        assert digest in line
    assert not (tmp_path / "cache").exists()
    result = us_i2v("convert", "i3d-kinetics400", source, "--sha256", digest.upper())
    assert result.exit_code == 0, result.stderr
    assert "(confirmed by the user)" in result.stdout
    extractor = load_extractor("fvd")
    assert "confirmed by the user" in extractor.description
    clip = np.random.default_rng(0).integers(0, 256, (9, 32, 32), dtype=np.uint8)
    assert float(extractor.features([clip]).std()) > 0


@pytest.mark.usefixtures("in_process")
def test_dt_i3d_and_inception_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = fake.i3d(18)
    content = {"state_dict": state}
    source = fake.publish(monkeypatch, "cinn-dt-i3d", tmp_path / "I3D_16.pth.tar", content, known=False)
    made = convert("i3d-dtdb", [source], {hashlib.sha256(source.read_bytes()).hexdigest()})
    floats = {name for name in state if not name.endswith("num_batches_tracked")}
    assert made.tensors.keys() == floats
    torch.manual_seed(0)
    network = InceptionV3()
    source = fake.publish(monkeypatch, "fid-inception", tmp_path / "pt_inception.pth", network.state_dict())
    found = convert("inception-fid", [source]).tensors
    own = network.state_dict()
    assert all(torch.equal(found[name], own[name]) for name in found)
    assert len(found) == 94 * 5 + 2


def test_mistaken_file_is_refused_even_with_the_users_word(
    us_i2v: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "i3d_pretrained_400.pt"
    source.write_bytes(b"stands for rgb_imagenet.pt")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(publishers.REFUSED, digest, next(iter(publishers.REFUSED.values())))
    line = one_line_error(us_i2v("convert", "i3d-kinetics400", source, "--sha256", digest, "-o", tmp_path))
    assert "rgb_imagenet.pt (50,883,138 bytes" in line
    assert "ImageNet-initialised" in line


@pytest.mark.usefixtures("in_process")
def test_wrong_files(us_i2v: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = fake.publish(monkeypatch, "lpips-alex-heads", tmp_path / "alex.pth", fake.lpips_heads("alex"))
    out = tmp_path / "out.safetensors"
    cases = [
        (("lpips-alexx", heads), "'lpips-alexx' cannot be converted. Use one of lpips-alex, "),
        (("lpips-alex", heads), "made from 2 file(s), alexnet-owt-7be5be79.pth and alex.pth; 1 given"),
        (("lpips-alex", heads, heads), "needed: alexnet-owt-7be5be79.pth 7be5be791159..."),
        (("lpips-alex", heads, tmp_path / "nothing.pth"), "Cannot read"),
    ]
    for arguments, expected in cases:
        assert expected in one_line_error(us_i2v("convert", *arguments, "-o", out))
    trunk = fake.alexnet()
    del trunk["features.3.bias"]
    source = fake.publish(monkeypatch, "torchvision-alexnet", tmp_path / "trunk.pth", trunk)
    line = one_line_error(us_i2v("convert", "lpips-alex", heads, source, "-o", out))
    assert "tensor 'features.3.bias' is missing" in line
    trunk["features.3.bias"] = torch.full((192,), torch.nan)
    source = fake.publish(monkeypatch, "torchvision-alexnet", source, trunk)
    assert "NaN" in one_line_error(us_i2v("convert", "lpips-alex", heads, source, "-o", out))
    x3d = fake.publish(monkeypatch, "pytorchvideo-x3d-xs", tmp_path / "x.pyth", {"model_state": {"a": torch.ones(1)}})
    assert "is missing" in one_line_error(us_i2v("convert", "x3d-xs", x3d, "-o", out))
    assert "does not end in" in one_line_error(us_i2v("convert", "x3d-xs", x3d, "-o", tmp_path / "x.pt"))
    assert not out.exists()


class Evil:
    """Runs code when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "touched"
    torch.save({"w": Evil(target)}, path)
    with pytest.raises(WeightsError, match="cannot be read as a state dict"):
        read_state_dict(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not target.exists()


def test_memory_limit_and_changed_file(tmp_path: Path) -> None:
    """A few bytes that ask for 16 GB: one stored number, and a shape that repeats it."""
    path = tmp_path / "large.pt"
    torch.save({"w": torch.zeros(1).expand(4_000_000_000)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=r"cannot be read as a state dict: .*(memory|signal)"):
        read_state_dict(path, digest, limits=Limits(memory=2 << 30, seconds=100))
    with pytest.raises(WeightsError, match="changed while it was read"):
        read_state_dict(path, "0" * 64)


def test_names_in_the_help_are_those_of_the_table() -> None:
    assert command.NAMES.replace(" or ", ", ").split(", ") == list(RECIPES)
    assert all(PRETRAINED[name].made_from for name in RECIPES)


@pytest.mark.usefixtures("in_process")
def test_result_is_loaded_under_its_own_name_only(us_i2v: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fake.publish(monkeypatch, "pytorchvideo-x3d-xs", tmp_path / "x.pyth", {"model_state": fake.x3d_xs()})
    out = tmp_path / "x.safetensors"
    assert us_i2v("convert", "x3d-xs", source, "-o", out).exit_code == 0
    with pytest.raises(WeightsError, match="holds 'x3d-xs' weights"):
        load_pretrained("inception-fid", out)
