"""Training: objectives, the loop, and checkpoints that are whole at every instant."""
