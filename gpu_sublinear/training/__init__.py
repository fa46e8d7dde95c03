"""From options to a finished training."""
