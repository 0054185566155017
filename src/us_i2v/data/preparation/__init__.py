"""Bringing public downloads into shape: corrected, without copies, in groups, with a manifest."""
