"""Tests of whether a batch comes from the distribution of a reference sample."""
