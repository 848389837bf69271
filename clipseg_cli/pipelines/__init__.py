"""Generators that join data, models, methods and outputs; they yield results and never print."""
