"""A finished run as a folder that needs none of this package."""
