"""Words, prompts and pictures coming in."""
