"""Verbs that inspect and maintain an output."""
