"""Modules that own parameters: spiking neurons, the layers between them, whole networks."""
