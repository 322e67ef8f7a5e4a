"""The cost of the issuer: logins, refreshes, and refreshes during a flood of logins."""
