"""The embedded mini survey; the rest of the package does not need it."""
