"""The log that services meet in: one port, three adapters (memory, embedded, Kafka)."""
