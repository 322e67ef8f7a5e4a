"""The cost of attacks over the wire for the checks of others (R43 to R47)."""
