"""A student's training."""
