"""Backends that unroll a neuron over time.  `eager` is the specification."""
