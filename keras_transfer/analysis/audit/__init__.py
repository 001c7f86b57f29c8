"""Audit what a model predicts: by group, and when a word of a text changes."""
