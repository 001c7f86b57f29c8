"""The report of a model: layer groups, training cost and evaluation."""
