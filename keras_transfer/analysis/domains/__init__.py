"""Two domains compared, and models chosen without labels of the target."""
