"""CLIP: how its towers are found, built and read densely."""
