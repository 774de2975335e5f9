"""The service registry: instances as leased keys, their life, and who is told of it.

Pure (no clock, no event loop): `names`, `times`, `model`, `lifecycle`, `liveness`, `guard`.
On top of a member: `catalog` (what there is), `keeper` (the leader's duty), `history`.
"""
