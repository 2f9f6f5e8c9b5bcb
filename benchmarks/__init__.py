"""How fast the main steps are, and how much memory they take. ``python -m benchmarks`` prints a table."""
