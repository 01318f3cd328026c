"""`dml-bench decide`: what a folder of photos says about a gallery and a classifier, in the time
that was allowed."""
