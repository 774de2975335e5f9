# put, get in every form, del, and the errors of each.
. "$LIB"
t put foo bar
t put foo bar2 --prev-kv
t get foo
t get foo --print-value-only
t get foo --keys-only
t get foo -w json
t get foo -w fields
t get foo --hex
t get nothing
t get nothing -w json
for i in 1 2 3 4 5; do t put key$i val$i; done
t put key2 again
t put other thing
t get key --prefix
t get key --prefix --limit 2
t get key --prefix --limit 2 -w json
t get key --prefix --keys-only
t get key --prefix --keys-only -w json
t get key2 key4
t get key3 --from-key
t get '' --from-key
t get '' --prefix --keys-only
t get key --prefix --order DESCEND --sort-by KEY
t get key --prefix --order ASCEND --sort-by VERSION
t get key --prefix --order DESCEND --sort-by CREATE
t get key --prefix --order DESCEND --sort-by MODIFY
t get key --prefix --order ASCEND --sort-by VALUE
t get key --prefix --sort-by MODIFY --limit 2
t get foo --rev 2
t get key2 --rev 5 -w json
t get foo --rev 1
t get foo --rev 10000
t get foo --consistency s
t get foo --consistency x
t get foo --prefix --from-key
ti 'from stdin' put piped
t get piped
t put key2 --ignore-value
t put absent --ignore-value
t put key2 x --ignore-value
t put key2 y --ignore-lease
t put absent y --ignore-lease
t put withlease x --lease=1234
t put
t put ''  x
t get
t del foo --prev-kv
t del foo
t del key2 key4
t del key --prefix --prev-kv
t put a 1
t put b 2
t put c 3
t del b --from-key
t get '' --prefix -w json
t del '' --prefix
t get '' --prefix -w fields
t put '' nothing
t put $'bin\x01\xff' $'\x80\x00end'
t get bin --prefix --hex
t get bin --prefix -w json
