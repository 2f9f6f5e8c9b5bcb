"""Bundled weights (package data): ``nano.safetensors``."""
