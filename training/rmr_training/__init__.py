"""Training side of RMR SDK: networks, losses, degradations, synthesis, the two stages of training, evaluation."""
