# What is said about wrong command lines, with which exit code.
. "$LIB"
t get
t get a b --prefix
t get a --prefix --from-key
t get a --order x
t get a --sort-by x
t get a --consistency x
t del
t del a b --prefix
t del a --prefix --from-key
t put
t put a b --lease=77
t lease grant
t lease revoke
t lease timetolive
t lease keep-alive
t member add
t member add x
t member add x --peer-urls=nonsense
t member remove
t member update 1
t member promote
t compaction
t watch
t watch a b --prefix
t lock
t elect
t elect name
t move-leader
t snapshot save
t snapshot status
t txn x
t watch a --rev 1 -- false
t get a --rev 100
t lease revoke 77
t member remove 77
t member promote 77
