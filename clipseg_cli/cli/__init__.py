"""Parse, call, show: Typer commands on top of the pipelines. No tensors here."""
