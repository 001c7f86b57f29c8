"""Base classes of tests: one for each kind of component, one test for each promise."""

import pytest

KINDS = ("layer", "model", "optimizer", "callback", "schedule", "loss", "domain")

# So that a failure shows its values, as in a test module.
pytest.register_assert_rewrite("tests.contracts.compare")
pytest.register_assert_rewrite(*(f"tests.contracts.{kind}_contract" for kind in KINDS))
