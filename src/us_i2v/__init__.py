"""us-i2v: plausible, labelled ultrasound video from a single ultrasound still."""

__version__ = "0.1.0"
