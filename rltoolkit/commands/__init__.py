"""What the commands of `rltoolkit` do, one module each; `rltoolkit.cli` parses and calls them."""
