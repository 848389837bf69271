"""What a run folder is: manifest, records, summary, identity. No torch."""
