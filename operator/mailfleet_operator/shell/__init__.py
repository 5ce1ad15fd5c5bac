"""What the operator does: Kubernetes, the log, the DNS, the webhook."""
