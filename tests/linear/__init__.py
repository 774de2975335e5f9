"""Checkers of recorded behaviour: two for linearizability, nine for watches."""
