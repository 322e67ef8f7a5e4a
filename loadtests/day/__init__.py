"""A day of users with attackers, which Locust plays on loopback."""
