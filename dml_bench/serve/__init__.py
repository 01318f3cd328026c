"""A run's gallery over HTTP: photos are looked up and classes are enrolled by programs and by a web
page, and what was answered is held against the calibration."""
