"""Reading an answer out of a response and comparing it: what the verifiers of this package share."""
