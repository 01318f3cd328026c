"""A finished run put to use: its gallery enlarged, photos looked up in it. What the run sealed
stays as it is."""
