"""Data: reading and writing stills, masks and clips; windows, resizing, splits, manifests, data-set layouts."""
