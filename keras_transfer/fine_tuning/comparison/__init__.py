"""Compare ways to train a model, over several seeds, on held-out examples."""
