"""Enrolment, confirmation and removal of a second factor.

Codes and their checks are in `credentials/`, the second step of a login in `login/`.
"""
