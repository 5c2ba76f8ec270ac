"""What must hold whatever fails: secrets stay out of all text, and disk failures are reported
clearly."""
