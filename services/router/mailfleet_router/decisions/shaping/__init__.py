"""How fast mail may go where: limits, what replies teach, warm-up, reputation, and who is next."""
