"""Builds Mailfleet's images without a registry and without a container daemon."""
