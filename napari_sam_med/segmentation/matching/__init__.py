"""One labelled example, and the same organ elsewhere."""
