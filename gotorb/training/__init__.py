"""The room that trains networks and draws posteriors; the only one that imports keras at module top."""
