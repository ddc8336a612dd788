"""What the sky is known to hold."""
