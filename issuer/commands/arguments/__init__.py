"""The arguments of every command, without an import of what it does."""
