"""The site of the documentation: what is on it, and how it is built and checked."""
