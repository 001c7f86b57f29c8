"""Change a model in place: upgrade, freeze and restore its layers."""
