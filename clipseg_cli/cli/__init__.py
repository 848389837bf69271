"""Parse, call, show: Typer commands on top of the commands and the Python API. No tensors here."""
