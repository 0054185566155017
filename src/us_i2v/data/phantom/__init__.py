"""A simulated breast under a hand-held probe: clips with known motion, for tests and for trying things."""

from us_i2v.data.phantom.config import PhantomConfig, Scanner
from us_i2v.data.phantom.dataset import write_phantom
from us_i2v.data.phantom.simulate import PhantomClip, simulate

__all__ = ["PhantomClip", "PhantomConfig", "Scanner", "simulate", "write_phantom"]
