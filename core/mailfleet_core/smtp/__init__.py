"""SMTP as values: replies, address grammar, protocol state machines."""
