"""The energy that a training used, as counters of the hardware measure it."""
