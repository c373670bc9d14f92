"""Whether a number can be believed: checks of the model and of the attacks."""
