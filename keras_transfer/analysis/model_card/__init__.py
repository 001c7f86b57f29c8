"""Model cards: what a model was made from, how, and what is known about it."""
