"""What attacks over the wire cost the checks of others (R43 to R47)."""
