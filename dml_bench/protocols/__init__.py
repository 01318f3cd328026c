"""Protocols: what is trained on, what is asked, and what is reported."""
