"""Masks without a hand: everything on a slice, linked to objects of a volume; edges; proposals; words."""
