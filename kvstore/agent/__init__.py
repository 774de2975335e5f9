"""The agent: keeps a program of any language registered, and its end in the right order."""
