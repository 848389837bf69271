"""Loading CLIP, reading it densely, and turning words into a classifier."""
