# Locks and elections, by etcdctl's client-side recipes.
. "$LIB"
t lock mutex echo inside
t lock mutex -- sh -c 'echo "rev $ETCD_LOCK_REV key ${ETCD_LOCK_KEY%%/*}"; exit 7'
bg l1 lock mutex2
l1=$!
wait_lines l1 1
bg l2 lock mutex2 echo second
l2=$!
sleep 0.4
t get mutex2 --prefix --keys-only | sed 's|/.*||'
wc -l <l2
kill -TERM $l1
wait $l2
cat l2
bg e1 elect leader one
e1=$!
wait_lines e1 2
bg e2 elect leader -l
e2=$!
wait_lines e2 2
kill $e2
sed -n 2p e2
t get leader --prefix --print-value-only
kill -TERM $e1
wait $e1
sed -n 2p e1
t get leader --prefix
