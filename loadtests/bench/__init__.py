"""`python -m loadtests.bench`: the cost of a check here and elsewhere, in one run."""
