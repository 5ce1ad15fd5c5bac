"""The postmaster's command, and the runner of everything on one machine."""
