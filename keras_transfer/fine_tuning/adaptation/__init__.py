"""Adapt a classifier to a target domain without labels."""
