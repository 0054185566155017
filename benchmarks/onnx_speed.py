"""Seconds a clip of onnxruntime and of torch, in turn, on the same still and noise; and how far their frames differ.

python benchmarks/onnx_speed.py [--weights RUN_OR_FILE] [--size 500x500] [--steps 4] [--threads 2] [--repeats 10]

Both are given their noise: what is timed is networks, warp and rendering, not the drawing of speckle, which the graph
does not hold. "ImageToVideo" is the whole clip as `us-i2v generate` makes it, drawing included. CPU only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from speed import still

from us_i2v.cli.export_onnx import parse_size
from us_i2v.onnx_export import INPUTS, ClipGraph, draw_inputs, export
from us_i2v.pipeline import GenerateOptions, ImageToVideo


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", default="500x500")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    height, width = parse_size(given.size)
    model = ImageToVideo.from_pretrained(given.weights, "cpu", given.threads)
    options = GenerateOptions(steps=given.steps)
    picture = np.ascontiguousarray(still(0, max(height, width))[:height, :width])
    inputs = draw_inputs(model, picture, options, 0)
    tensors = [torch.from_numpy(inputs[name]) for name in INPUTS]
    graph = ClipGraph(model, (height, width), options).eval()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        begun = time.perf_counter()
        export(model, path, (height, width), options)
        print(f"export: {time.perf_counter() - begun:.1f} s, {path.stat().st_size / 1e6:.1f} MB")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = given.threads
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def by_torch() -> np.ndarray:
        with torch.no_grad():
            return graph(*tensors).numpy()

    ways: dict[str, Callable[[], np.ndarray]] = {
        "onnxruntime": lambda: session.run(["frames"], inputs)[0],
        "torch, the same graph": by_torch,
        "ImageToVideo": lambda: model(picture, seed=0, options=options)[0].frames,
    }
    frames = {name: way() for name, way in ways.items()}  # Warm-up, too.
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - begun)
    print(
        f"{width}x{height}, {options.frames} frames, {given.steps} steps, {given.threads} threads, n = {given.repeats}"
    )
    for name, values in taken.items():
        print(f"{name}: {statistics.median(values):.3f} s median, {max(values):.3f} s worst")
    differences = np.abs(frames["onnxruntime"] - frames["torch, the same graph"])
    print(f"onnxruntime - torch: {differences.max():.1e} at most, {differences.mean():.1e} on average (of 0..1)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
