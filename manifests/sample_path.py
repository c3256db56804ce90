"""Manifest of the sample objects, which come with the package."""

from pathlib import Path

SAMPLE = str(Path(__file__).parent / "sample" / "objects.jsonl")
