"""Cutting stamps out of images."""
