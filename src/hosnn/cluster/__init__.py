"""Many experiments, or the shares of one evaluation, on the cores of one machine or on a cluster, by Ray."""
