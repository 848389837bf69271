"""The recipe behind the bundled model `emoji`: pictures composed from emoji artwork, and a tiny CLIP."""
