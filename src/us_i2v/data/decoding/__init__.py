"""Decoders: one file per kind of clip container, all behind `base.FrameSource`."""
