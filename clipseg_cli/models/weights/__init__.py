"""Weight files: fetched, read, fitted, told apart."""
