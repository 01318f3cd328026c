from dml_bench.cli import main

main()
