"""Fixtures of the command line tests."""

from tests.cli.cli_scan import _own_folders, run, scan

__all__ = ["_own_folders", "run", "scan"]
