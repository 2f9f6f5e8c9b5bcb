"""The bundled organ classifier."""
