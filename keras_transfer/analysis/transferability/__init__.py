"""Scores of pretrained features on a new task, without training the network."""
