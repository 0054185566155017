"""The command line: thin commands over plain functions.

Importing this package must not import torch: `us-i2v --help` answers at once. Commands import what
they call inside their body.
"""
