"""Each classifier learns eight phantom clips by heart: in evaluation mode it names all of them rightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.classifier_clips import LABELS, phantom_clips
from us_i2v.models.classifiers import NAMES, ClassifierConfig, build_classifier

# Batch norms need time until their running statistics fit; that time is most of the steps.
STEPS = 80
RATE = {"c3d": 1e-3, "tsm": 3e-3, "tdn": 3e-3, "atm": 2e-3}


@pytest.mark.parametrize("name", NAMES)
def test_eight_clips_are_learned_by_heart(name: str) -> None:
    clips = phantom_clips()
    video = torch.from_numpy(np.stack([frames[:16] for _, frames in clips])).float()[:, None] / 255
    label = torch.tensor([LABELS.index(own) for own, _ in clips])
    torch.manual_seed(0)
    network = build_classifier(ClassifierConfig(name=name, width=0.125, size=64, segments=4, dropout=0), 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE[name], betas=(0.9, 0.99), weight_decay=0)
    right = 0
    for step in range(1, STEPS + 1):
        for group in optimiser.param_groups:
            group["lr"] = RATE[name] * min(1, step / 5) * (1 - step / (STEPS + 1))
        loss = cross_entropy(network.train()(video), label)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 10 == 0:
            with torch.no_grad():
                right = int((network.eval()(video).argmax(1) == label).sum())
            if right == len(clips):
                break
    assert right == len(clips)
