"""Compares recipes by what they learn: named arms on named task sets, at equal steps and at equal time, over seeds."""
