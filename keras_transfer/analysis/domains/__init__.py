"""Compare two domains, and select models without labels of the target."""
