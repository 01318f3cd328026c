"""The report: the study's four questions answered from finished runs, with tables, figures and how
all of it was made, on one page."""
