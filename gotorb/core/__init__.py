"""Facts and tools with one home, which every other room may use."""
