"""The settings, and the forms of their values.

Only commands build them; they are passed down.
"""
