"""Which detection gets which label, and why."""
