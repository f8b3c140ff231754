"""The critics of RLSP: what gives values, where it starts, and its files."""
