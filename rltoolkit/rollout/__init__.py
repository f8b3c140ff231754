"""Ask a policy for samples: one small interface, and the backends that stand behind it."""
