"""What the relay costs, compared in one run with what its libraries cost: ``make bench``."""
