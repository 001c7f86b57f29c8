"""Base classes of tests: one class per kind of component, one test per guarantee."""

import pytest

KINDS = ("layer", "model", "optimizer", "callback", "schedule", "loss", "domain")

# A failure then shows its values, as in a test module.
pytest.register_assert_rewrite("tests.contracts.compare")
pytest.register_assert_rewrite(*(f"tests.contracts.{kind}_contract" for kind in KINDS))
