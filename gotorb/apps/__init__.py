"""Tools for people: scoring."""
