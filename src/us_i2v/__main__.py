"""`python -m us_i2v`: the command line, for `torchrun -m us_i2v train-ldm ...` among others."""

from us_i2v.cli.app import main

main()
