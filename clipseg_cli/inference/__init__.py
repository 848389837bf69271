"""From pixels to labels: the one loop that every command goes through."""
