# Watches: live, prefix, range, from a past revision, filters by option, compacted, with commands.
. "$LIB"
t put before 0
bg w1 watch foo
w1=$!
bg w2 watch key --prefix --prev-kv
w2=$!
bg w3 watch a c -w json
w3=$!
sleep 0.6
t put foo 1
t put foo 2
t del foo
t put key1 x
t put key1 y
t put key2 z
t del key --prefix
t put a 1
t put b 2
t put c 3
wait_lines w1 8
wait_lines w2 20
wait_lines w3 2
kill $w1 $w2 $w3
wait 2>/dev/null
cat w1; echo --; cat w2; echo --; cat w3
t compaction 4
bg w4 watch foo --rev 4
w4=$!
wait_lines w4 5
kill $w4; wait 2>/dev/null
cat w4
bg w5 watch foo --rev 2
wait
cat w5
bg w6 watch foo --rev 100
w6=$!
sleep 0.3
t put foo later
sleep 0.3
kill $w6; wait 2>/dev/null
cat w6
bg w7 watch run -- sh -c 'echo "ran: $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"'
w7=$!
sleep 0.4
t put run me
wait_lines w7 4
kill $w7; wait 2>/dev/null
cat w7
t watch
