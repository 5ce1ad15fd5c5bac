"""The operator: it watches pools, addresses and policies in Kubernetes, and tells the log and the cluster what follows."""
