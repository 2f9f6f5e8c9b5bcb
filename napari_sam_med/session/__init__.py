"""What one annotator is doing: the evented state, undo, and the jobs that run beside it. No napari, no Qt."""
