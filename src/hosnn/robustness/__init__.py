"""Adversarial geometry and attacks.  Nothing here knows of spikes: a model is a function from inputs to scores."""
