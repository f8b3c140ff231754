"""What is watched while RLSP trains: counters, samples, and the alarm of reward hacking."""
