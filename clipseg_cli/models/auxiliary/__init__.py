"""Networks beside CLIP: self-supervised ViTs, saliency, heads."""
