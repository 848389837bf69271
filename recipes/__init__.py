"""How what ships with the package was made."""
