"""Training loops of both stages and what they share."""
