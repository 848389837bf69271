"""A training run, part by part."""
