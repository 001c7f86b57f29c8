"""How far probabilities can be trusted: calibration, sets of classes, abstention."""
