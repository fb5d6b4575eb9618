"""The command line: one file per command, heavy packages imported only when a command needs them."""

from trustnlp.cli.app import main

__all__ = ["main"]
