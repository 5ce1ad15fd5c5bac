"""What the operator decides: values and time in, values out."""
