"""What a bound model carries: its clock, the bond between the two, and how both are saved and copied."""
