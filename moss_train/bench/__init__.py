"""Measurements of single parts on the machine at hand, with what is needed to read and repeat them."""
