import numpy as np
import pytest

from us_i2v.reproduction.several import answer_several, spread_indices


class Clips:
    def __init__(self, count):
        rng = np.random.default_rng(1)
        self.names = [f"c{k}" for k in range(count)]
        self.groups = [f"p{k % 2}" for k in range(count)]
        self.sources = ["s"] * count
        self.stored = rng.integers(60, 200, (count, 4, 48, 48)).astype(np.uint8)

    def __len__(self):
        return len(self.names)

    def frames(self, index):
        return self.stored[index]

    def crop(self, index):
        return None


class Mean:
    per_frame = False

    def features(self, clips):
        return np.array([[clip.mean()] for clip in clips])


class Answers(Clips):
    def sample(self, index, number):
        return np.full((4, 48, 48), 100 + number, np.uint8)


def test_diversity_is_that_of_the_first_five_answers():
    several = answer_several(Clips(3), Answers(3), [0, 2], 8, {"mean": Mean()}, None)
    # Answers 100 .. 104: the mean squared difference over pairs is twice their unbiased variance.
    assert several.diversity["mean"] == pytest.approx([5.0, 5.0])
    assert several.energy.names == ("c0", "c2")
    assert several.energy.groups == ("p0", "p0")
    assert set(several.energy.scores) == {"motion"}


def test_stills_are_spread_over_groups():
    assert spread_indices(["a", "a", "a", "b", "c", "c"], 4) == [0, 1, 3, 4]
    assert spread_indices(["a", "b"], 9) == [0, 1]
