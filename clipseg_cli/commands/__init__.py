"""One file = what one command does."""
