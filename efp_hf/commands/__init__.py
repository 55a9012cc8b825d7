"""The `efp` command, a file a subcommand."""
