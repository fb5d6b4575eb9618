"""Lets the tests of this room import their own modules: tests are collected by path, so their folders are not on it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
