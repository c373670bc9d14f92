"""Training: what to minimise (objectives), the loop, and checkpoints that survive anything."""
