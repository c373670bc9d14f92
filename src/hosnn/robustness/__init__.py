"""Threat models and attacks.  A model is any function from inputs to scores; nothing here is about spikes."""
