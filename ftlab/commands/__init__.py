"""One file per command, each with `run(name, arguments)`."""
