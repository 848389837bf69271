"""Small things without knowledge of segmentation: registry, devices, files."""
