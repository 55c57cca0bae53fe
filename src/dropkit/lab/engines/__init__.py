"""What trains a plan, one file for each framework, and what they have in common."""
