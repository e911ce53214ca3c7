"""One file per command, each with `run(name, arguments)`: the command's name, what follows it, and the exit code."""
