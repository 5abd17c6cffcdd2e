"""What is measured, one module each, and the check that runs them."""
