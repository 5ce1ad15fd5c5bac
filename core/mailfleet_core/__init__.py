"""What two or more of Mailfleet's services share; it knows no service."""
