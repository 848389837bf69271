"""CLIP: finding and building its towers, and reading one feature per patch from them."""
