"""A finished run's images, looked at one by one: in FiftyOne, as a picture, and as a page."""
