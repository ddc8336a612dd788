"""Catalogues of what is on the sky."""
