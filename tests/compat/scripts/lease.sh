# Leases: grant, attach, list, keep alive, revoke, expiry, and dead ones.
. "$LIB"
t lease grant 1000
id=$(ctl lease list | tail -n 1)
t put leased1 a --lease="$id"
t put leased2 b --lease="$id"
t get leased --prefix -w fields
t lease timetolive "$id"
t lease timetolive "$id" --keys
t lease timetolive "$id" --keys -w json
t lease list
t lease keep-alive "$id" --once
t put leased2 c
t lease timetolive "$id" --keys
t lease revoke "$id"
t get leased --prefix
t lease revoke "$id"
t lease timetolive "$id"
t lease keep-alive "$id" --once
t lease grant 1
t lease grant -5
t lease grant 9000000001
t lease grant abc
t lease revoke xyz
t lease grant 2
short=$(ctl lease grant 2 | awk '{print $2}')
t put brief x --lease="$short"
bg w watch brief
w=$!
wait_lines w 2
kill $w; wait 2>/dev/null
cat w
t get brief
t lease timetolive "$short"
