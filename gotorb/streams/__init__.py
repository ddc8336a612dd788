"""Streams of alerts: read from Kafka, scored, kept in a journal that loses and duplicates none, and published."""
