"""CUDA graphs: kernels of a network that is called again and again with tensors of the same shapes, launched as one.

A small network keeps a GPU busy for less time than it takes Python to launch its kernels. Recorded once, they are
launched together (PyTorch documentation, "CUDA Graphs").
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    _Recorded = tuple[torch.cuda.CUDAGraph, list[Tensor | None], Tensor]

_AFTER = 8
"""Calls before a recording, which costs about three: two clips of four steps."""
_KEPT = 4
"""Recordings of other shapes that are kept; each holds its network's intermediate results in memory."""


def replayed(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """Return the function as a `Replay` on CUDA, itself elsewhere."""
    return Replay(function) if device.type == "cuda" else function


class Replay:
    """Calls a function of CUDA tensors, from the ninth call with the same shapes on as a recorded graph.

    Args:
        function: Of tensors, to one tensor. The same kernels must follow from the same shapes, and what else it reads
            (weights) must stay where it is. Without gradients; autocast must not cache weights.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._calls: Counter[tuple[object, ...]] = Counter()
        self._recorded: OrderedDict[tuple[object, ...], _Recorded] = OrderedDict()

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Return function(*inputs); None may stand for a tensor, always the same ones in a recording."""
        key = tuple(None if x is None else (x.shape, x.dtype) for x in inputs)
        if key not in self._recorded:
            self._calls[key] += 1
            if self._calls[key] <= _AFTER:
                return self.function(*inputs)
            self._recorded[key] = self._record(inputs)
            if len(self._recorded) > _KEPT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        graph, given, found = self._recorded[key]
        for place, x in zip(given, inputs, strict=True):
            if place is not None and x is not None:
                place.copy_(x)
        graph.replay()
        return found.clone()

    def _record(self, inputs: tuple[Tensor | None, ...]) -> _Recorded:
        """Run the function twice on a stream of its own, as recording demands, then record it."""
        given = [None if x is None else x.clone(memory_format=torch.contiguous_format) for x in inputs]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):
                self.function(*given)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = self.function(*given)
        return graph, given, found
