"""Sweeps of experiments, and evaluations in shards, on the cores of one machine or on a cluster, by Ray."""
