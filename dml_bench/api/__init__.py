"""What the package offers to a notebook and to its own command line, a module for each family of
functions. `import dml_bench` has them all by name; nothing heavy is imported before it is used."""
