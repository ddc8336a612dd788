"""Arrays in, numbers or Figures out."""
