"""The report of a model: what it is made of, how far it moved, what it cost."""
