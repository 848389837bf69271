"""Banks of what images show: of labelled ones, and of the regions of unlabelled ones."""
