"""DNS: the resolver port and the guard against inside addresses."""
