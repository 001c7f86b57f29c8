"""The pilot of fine_tune: short trials on held-out labels that choose a strategy."""
