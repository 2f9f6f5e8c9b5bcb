"""Images drawn by a procedure: shapes, scenes of many parts, and how a scanner would show them."""
