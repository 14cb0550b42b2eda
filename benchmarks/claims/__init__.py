"""The three claims of the method, tested at a scale that one CPU core affords.

arms       what is compared: networks, and how each is trained
pool       synthetic patches on disk, shared by all runs
training   one run: steps, checkpoints, resuming
measures   figures of a trained network
verdicts   the rule, stated before the runs, and what it is applied to
page       tables and figure from the results
"""
