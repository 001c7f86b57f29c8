"""Adapters in a model in place: its layers upgraded, frozen, and given back."""
