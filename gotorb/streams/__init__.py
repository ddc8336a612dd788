"""Streams of alerts: read from Kafka, scored, kept in a journal that loses and doubles nothing, and published."""
