"""Owns what the command lines of both programs share: options and completion."""
