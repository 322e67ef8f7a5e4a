"""`python -m loadtests.bench`: what a check costs here and elsewhere, in one run."""
