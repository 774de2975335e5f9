"""Health checks: how a program is asked whether it is well, and what the answers add up to.

`spec` says what a check is, `tally` what a row of findings means, `reach` where a check may
connect to, `probes` asks once, `scheduler` asks again and again.
"""
