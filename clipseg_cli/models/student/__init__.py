"""The network that is distilled."""
