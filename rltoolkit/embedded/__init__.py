"""Small worlds that need no download: a task, a tokenizer and a model that are made from scratch."""
