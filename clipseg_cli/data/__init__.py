"""Words, prompts and images coming in."""
