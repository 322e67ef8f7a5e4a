"""What the issuer costs: logins, refreshes, and refreshes during a flood of logins."""
