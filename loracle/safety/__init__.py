"""What must hold whatever fails: secrets stay out of every text, and a failing disk is named."""
